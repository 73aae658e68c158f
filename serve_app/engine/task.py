"""A tile's task and its state in an engine. Holds no tensor.

WAITING --encode--> RUNNING --step, step, ...--> FINISHING --decode--> (gone)
   any state --cancel or failure--> (gone)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serve_app.contracts import DEFAULT_TENANT, Priority, ResolvedParams
from serve_app.tiling.geometry import Tile
from serve_app.tiling.levels import Levels


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
        last_turn: The turn in which it last took part.
    """

    id: int
    task: TileTask
    steps: int
    bucket: Bucket
    deadline: float | None = None
    phase: Phase = Phase.WAITING
    steps_done: int = 0
    last_turn: int = -1
