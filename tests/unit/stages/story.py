"""What the tests of both stages share: a small model, pictures, and the way from one stage to the next."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from PIL import Image

from serve_app.contracts import ModelInfo, ResolvedParams, UpscaleParams, resolve
from serve_app.controls.pictures import DepthEstimator
from serve_app.levels import Levels
from serve_app.settings import ImageLimits
from serve_app.stages.enlarge import Source
from serve_app.stages.finish import Finish, Finished
from serve_app.stages.prepare import Outline, prepare, strip
from serve_app.tiling.grid import Plan

LIMITS = ImageLimits()
MODEL = ModelInfo(
    name="small",
    description="Small tiles.",
    license="Apache-2.0",
    tile_px=32,
    overlap_px=8,
    align_px=8,
)


def params(**asked: Any) -> ResolvedParams:
    """Nothing corrects the result, unless it is asked for."""
    given = {"fidelity": 0.0, "color_fix": "none"} | asked
    return resolve(UpscaleParams(**given), MODEL, drawn_seed=0)


def random_picture(seed: int, *shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


def prepared(
    image: bytes,
    asked: ResolvedParams,
    control_images: Mapping[str, bytes] | None = None,
    model: ModelInfo = MODEL,
    depth: DepthEstimator | None = None,
    limits: ImageLimits = LIMITS,
) -> tuple[Plan, Source, list[Levels]]:
    """The plan, the source, and the crops of all tiles."""
    found, _, source, *drawn = prepare(image, control_images or {}, asked, model, limits, depth)
    plan, opened = cast(Outline, found).plan, cast(Source, source)
    pictures = cast(list[Levels], drawn)
    rows = range(len(plan.tops))
    return plan, opened, [c for row in rows for c in strip(plan, asked, row, opened, pictures)]


def finished(plan: Plan, asked: ResolvedParams, source: Source, tiles: list[Levels]) -> Finished:
    """All of the second stage."""
    across = len(plan.lefts)
    with Finish(plan, asked, MODEL, source, LIMITS) as finish:
        for first in range(0, len(tiles), across):
            finish.add(tiles[first : first + across])
        return finish.end()


def through(image: bytes, asked: ResolvedParams) -> tuple[Source, list[Levels], bytes]:
    """Both stages, with tiles that come back unchanged."""
    plan, source, tiles = prepared(image, asked)
    return source, tiles, finished(plan, asked, source, tiles).image
