"""The CPU deployment before the denoisers: bytes to tile crops. No torch, unless the model reads depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from serve_app.contracts import ModelInfo, ResolvedParams
from serve_app.controls.depth import open_depth
from serve_app.deployments.heap import return_large_blocks
from serve_app.imaging.frames import Frames
from serve_app.levels import Levels
from serve_app.settings import Settings
from serve_app.stages.animate import split
from serve_app.stages.enlarge import Source
from serve_app.stages.prepare import Faces, Outline, prepare, strip
from serve_app.tiling.grid import Plan


class Preprocess:
    """Wraps `stages.prepare`. It keeps nothing between two calls, so any replica takes any of them.

    Each item that is yielded is an object of its own in the store of Ray, owned by the caller, who passes the
    references on. None stands at the end.

    Args:
        settings: Limits on pictures, and the model whose depth estimator is loaded, if it has one.
    """

    def __init__(self, settings: Settings) -> None:
        return_large_blocks()
        self._limits = settings.images
        self._depth = open_depth(settings.model)

    def prepare(
        self,
        image: bytes,
        control_images: Mapping[str, bytes],
        params: ResolvedParams,
        model: ModelInfo,
    ) -> Iterator[Outline | Faces | Source | Levels | None]:
        """Yields the outline, the faces, the decoded source, and the picture of each control but `upscale`."""
        yield from prepare(image, control_images, params, model, self._limits, self._depth)
        yield None

    def split(
        self, image: bytes, params: ResolvedParams, model: ModelInfo
    ) -> Iterator[Frames | bytes | None]:
        """Yields what is known of a moving picture's frames, None for a still one, then the pictures."""
        found = split(image, params, model, self._limits)
        yield None if found is None else replace(found, pictures=())
        yield from () if found is None else found.pictures
        yield None

    def strip(
        self, plan: Plan, params: ResolvedParams, row: int, source: Source, *drawn: Levels
    ) -> Iterator[Levels | None]:
        """Yields the crops of a row of tiles; pictures are top-level arguments, so that Ray resolves them."""
        yield from strip(plan, params, row, source, drawn)
        yield None
