"""Tasks, entries and crops for tests of the engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from serve_app.contracts import Priority, UpscaleParams, resolve
from serve_app.engine.task import Bucket, Entry, TileInputs, TileTask
from serve_app.levels import Levels
from serve_app.testing import FAKE_MODEL
from serve_app.tiling.geometry import Tile

SIDE_PX = 8


def task(
    index: int = 0,
    steps: int = 2,
    side_px: int = SIDE_PX,
    request_id: str = "request",
    tenant: str = "tenant",
    priority: Priority = Priority.INTERACTIVE,
    time_left_s: float | None = None,
) -> TileTask:
    params = resolve(UpscaleParams(steps=steps), FAKE_MODEL, drawn_seed=0)
    tile = Tile(0, 0, side_px, side_px)
    return TileTask(request_id, index, tile, params, priority, tenant, time_left_s)


def entry(
    number: int, steps: int = 2, side_px: int = SIDE_PX, lora: str = "", **given: Any
) -> Entry:
    asked = task(number, max(steps, 1), side_px, **given)
    return Entry(number, asked, steps, Bucket(side_px, side_px, lora=lora))


def crop(index: int) -> Levels:
    """A crop that tells its tile's index."""
    return np.full((SIDE_PX, SIDE_PX, 3), index, np.uint16)


def inputs(index: int) -> TileInputs:
    """Inputs whose one crop tells its tile's index."""
    return TileInputs([crop(index)])
