"""A tile's task, its state in an engine, and what the engine asks of what computes it. Holds no tensor.

WAITING --encode--> RUNNING --step, step, ...--> FINISHING --decode--> (gone)
   any state --cancel or failure--> (gone)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from serve_app.contracts import DEFAULT_TENANT, Priority, ResolvedParams
from serve_app.errors import TesseraError
from serve_app.levels import Levels
from serve_app.tiling.geometry import Tile


@dataclass(frozen=True, slots=True)
class TileTask:
    """One tile to compute; its pictures and prompts travel beside it. Computed twice, it is the same tile.

    Attributes:
        request_id: The request that it belongs to; the requests of a tenant share the engine alike.
        index: Its place in the plan.
        tile: Where it lies on the canvas, px; also which part of the noise field it gets.
        params: What to do; the same for all tiles of a request.
        priority: The class in which it waits.
        tenant: The tenants of a class share the engine alike.
        time_left_s: Seconds until its request's deadline, counted from its sending; None is for ever.
    """

    request_id: str
    index: int
    tile: Tile
    params: ResolvedParams
    priority: Priority = Priority.INTERACTIVE
    tenant: str = DEFAULT_TENANT
    time_left_s: float | None = None


class PromptArrays(NamedTuple):
    """One prompt's embeddings as they travel: float32, which holds bfloat16 without loss.

    Attributes:
        sequence: (tokens, joint_attention_dim).
        pooled: (pooled_projection_dim,).
    """

    sequence: npt.NDArray[np.float32]
    pooled: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TileInputs:
    """The pictures and prompts of a task.

    Attributes:
        controls: Crops of the control pictures, (height, width, 3), one for each of `params.all_controls`.
        prompts: One for each of `params.texts`.
    """

    controls: Sequence[Levels]
    prompts: Sequence[PromptArrays] = ()


class Bucket(NamedTuple):
    """Only tiles of one bucket share a batch: they have one shape and one set of weights."""

    height: int
    width: int
    text_tokens: int = 0
    lora: str = ""
    lora_scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """What the autoencoder cares for: the tile's height and width, px."""
        return self.height, self.width


class Kind(Enum):
    """What a turn of the engine does."""

    ENCODE = auto()
    STEP = auto()
    DECODE = auto()


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
        bucket: With whom it may share a batch.
        deadline: The engine's clock when it is too late, s; None is never.
        phase: Where it stands.
        steps_done: Steps run so far.
    """

    id: int
    task: TileTask
    steps: int
    bucket: Bucket
    deadline: float | None = None
    phase: Phase = Phase.WAITING
    steps_done: int = 0


class Runner(Protocol):
    """What computes: it keeps the tensors of each entry by its id and never chooses.

    Each method either changes all of its entries or raises and changes none; the engine then tries them one
    by one. All but `plan` are called on the engine's thread.

    Attributes:
        rows_skipped: Rows of steps that a residual cache has spared so far.
    """

    rows_skipped: int

    def plan(self, task: TileTask, inputs: TileInputs) -> tuple[int, Bucket]:
        """The steps that the task needs and its bucket. On the caller's thread; must be cheap."""

    def open(self) -> Mapping[tuple[Kind, int], float]:
        """Takes hold of the accelerator and warms every batch size; called first, once.

        Returns:
            The seconds that each kind of work took at each size.
        """

    def encode(self, entries: Sequence[Entry], inputs: Sequence[TileInputs], size: int) -> None:
        """Prepares latents from control pictures and prompts, in a batch of `size`."""

    def step(self, entries: Sequence[Entry], size: int) -> None:
        """Runs step `steps_done` of each entry, all in one batch that is padded to `size`."""

    def decode(self, entries: Sequence[Entry], size: int) -> list[Levels | TesseraError]:
        """The tiles' pixels, each (height, width, 3), or why that one has none."""

    def probe(self) -> None:
        """Asks the accelerator for a sign of life; raises where there is none."""

    def drop(self, entry_id: int) -> None:
        """Frees what is kept for an entry, if anything."""
