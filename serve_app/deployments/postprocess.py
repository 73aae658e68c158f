"""The CPU deployment after the denoisers: tiles to bytes. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ray
from ray import ObjectRef

from serve_app.contracts import FidelityReport, ModelInfo, ResolvedParams
from serve_app.deployments.heap import return_large_blocks
from serve_app.imaging.frames import Frames
from serve_app.settings import Settings
from serve_app.stages.animate import join
from serve_app.stages.enlarge import Source
from serve_app.stages.finish import Finish
from serve_app.tiling.grid import Plan


class Postprocess:
    """Wraps `stages.finish`. It keeps nothing between calls: when a replica dies, another does its pictures.

    Args:
        settings: Limits on what following a source's profile and reading its metadata may take.
    """

    def __init__(self, settings: Settings) -> None:
        return_large_blocks()
        self._limits = settings.images

    def finish(
        self,
        plan: Plan,
        params: ResolvedParams,
        model: ModelInfo,
        source: Source,
        rows: Sequence[Sequence[ObjectRef]],
    ) -> Iterator[FidelityReport | bytes | None]:
        """Finishes a picture.

        Args:
            plan: Where the tiles lie.
            params: What to do.
            model: Says what the caller leaves open.
            source: The decoded source.
            rows: References to the tiles, a list for each row; nested, so that Ray leaves them unresolved and
                one row is in this process at a time. What the store does not hold it has on disk.

        Yields:
            The report, the file in pieces, and None at the end.
        """
        with Finish(plan, params, model, source, self._limits) as finish:
            for row in rows:
                finish.add(ray.get(list(row)))
            yield finish.close()
            yield from finish.pieces()
        yield None

    def join(
        self, frames: Frames, params: ResolvedParams, model: ModelInfo
    ) -> Iterator[bytes | None]:
        """Joins a moving picture's frames; their pictures are references, of which one is opened at a time.

        Yields:
            The file, and None at the end.
        """

        def take(at: int) -> bytes:
            return b"".join(ray.get(frames.pictures[at]))

        yield join(frames, take, params, model, self._limits)
        yield None
