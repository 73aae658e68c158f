"""The CPU deployment after the denoisers: tiles to bytes. Loads no torch."""

from __future__ import annotations

from serve_app.contracts import ResolvedParams
from serve_app.stages import Source, finish
from serve_app.tiling.grid import Plan
from serve_app.tiling.levels import Levels


class Postprocess:
    """Wraps `stages.finish`."""

    def finish(
        self,
        plan: Plan,
        params: ResolvedParams,
        backprojection_rounds: int,
        source: Source,
        *tiles: Levels,
    ) -> bytes:
        """Finishes a picture; the tiles are top-level arguments, so that Ray resolves their references."""
        return finish(plan, params, backprojection_rounds, source, tiles)
