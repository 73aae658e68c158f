"""The CPU deployment after the denoisers: tiles to bytes. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ray
from ray import ObjectRef

from serve_app.contracts import FidelityReport, ModelInfo, ResolvedParams
from serve_app.stages.enlarge import Source
from serve_app.stages.finish import Finish
from serve_app.tiling.grid import Plan


class Postprocess:
    """Wraps `stages.finish`. It keeps nothing between calls: when a replica dies, another does its pictures."""

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
            The report, the file, and None at the end.
        """
        with Finish(plan, params, model, source) as finish:
            for row in rows:
                finish.add(ray.get(list(row)))
            finished = finish.end()
        yield finished.report
        yield finished.image
        yield None
