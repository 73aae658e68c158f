"""A tile's task and its state in an engine. Holds no tensor.

WAITING --encode--> RUNNING --step, step, ...--> FINISHING --decode--> (gone)
   any state --cancel or failure--> (gone)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from serve_app.contracts import ResolvedParams
from serve_app.tiling.geometry import Tile


@dataclass(frozen=True, slots=True)
class TileTask:
    """One tile to compute; its control picture travels beside it. Computed twice, it is the same tile.

    Attributes:
        request_id: The request that it belongs to, for logs.
        index: Its place in the plan.
        tile: Where it lies on the canvas, px; also which part of the noise field it gets.
        params: What to do; the same for all tiles of a request.
    """

    request_id: str
    index: int
    tile: Tile
    params: ResolvedParams


class Phase(Enum):
    """Where a task stands."""

    WAITING = auto()  # accepted; nothing computed
    RUNNING = auto()  # holds latents; takes part in steps
    FINISHING = auto()  # all steps done; to be decoded


@dataclass(slots=True)
class Entry:
    """A task inside an engine: what the scheduler needs to decide, and no more.

    Attributes:
        id: Unique in this engine, rising with arrival.
        task: What to compute.
        steps: Denoising steps to run; 0 only for a task that needs none.
        phase: Where it stands.
        steps_done: Steps run so far.
    """

    id: int
    task: TileTask
    steps: int
    phase: Phase = Phase.WAITING
    steps_done: int = 0

    @property
    def bucket(self) -> tuple[int, int]:
        """Only tasks of one bucket share a batch: the tile's height and width."""
        return self.task.tile.height, self.task.tile.width
