"""The CPU deployment before the denoisers: bytes to tile crops. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator

from serve_app.contracts import ModelInfo, ResolvedParams
from serve_app.settings import ImageLimits
from serve_app.stages import Outline, Source, cut, open_source, outline
from serve_app.tiling.levels import Levels


class Preprocess:
    """Wraps `stages.outline`, `open_source` and `cut`.

    Args:
        limits: On the upload, the source and the result.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits

    def prepare(
        self, image: bytes, params: ResolvedParams, model: ModelInfo
    ) -> Iterator[Outline | Source | Levels]:
        """Prepares a picture.

        Yields:
            The outline, the decoded source, then one crop for each tile. Each item is an object of its own in
            Ray's store, owned by the caller, who passes the references on.
        """
        found = outline(image, params, model, self._limits)
        yield found
        source = open_source(image, self._limits)
        yield source
        yield from cut(source, found.plan)
