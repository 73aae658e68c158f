"""The CPU deployment before the denoisers: bytes to tile crops. No torch, unless the model reads depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from serve_app.contracts import ModelInfo, ResolvedParams
from serve_app.controls.depth import open_depth
from serve_app.settings import Settings
from serve_app.stages import Outline, Source, prepare
from serve_app.tiling.levels import Levels


class Preprocess:
    """Wraps `stages.prepare`.

    Args:
        settings: Limits on pictures, and the model whose depth estimator is loaded, if it has one.
    """

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.images
        self._depth = open_depth(settings.model)

    def prepare(
        self,
        image: bytes,
        control_images: Mapping[str, bytes],
        params: ResolvedParams,
        model: ModelInfo,
    ) -> Iterator[Outline | Source | Levels | None]:
        """Prepares a picture.

        Yields:
            The outline, the decoded source, for each tile one crop for each control, and None at the end. Each
            item is an object of its own in the store of Ray, owned by the caller, who passes the references on.
        """
        yield from prepare(image, control_images, params, model, self._limits, self._depth)
        yield None
