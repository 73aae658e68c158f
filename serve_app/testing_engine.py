"""Fakes for the engine's seams: what gives each tile's crop back, at a pace and with faults that a test sets.

Nothing here is imported by the product. It refuses to know networks, and test frameworks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.engine.engine import Engine
from serve_app.engine.scheduler import Scheduler, static_sizes
from serve_app.engine.task import Bucket, Entry, Kind, TileInputs, TileTask
from serve_app.errors import GarbageTile, TesseraError
from serve_app.levels import Levels
from serve_app.settings import EngineSettings


class IdentityDenoiser:
    """A `parts.TileDenoiser` that gives each crop back, without an engine.

    Args:
        on_tile: Awaited for each tile after its last step; may wait, and may raise what it shall fail with.

    Attributes:
        tasks: Every task so far, sent again or not.
    """

    def __init__(self, on_tile: Callable[[TileTask], Awaitable[None]] | None = None) -> None:
        self.tasks: list[TileTask] = []
        self._on_tile = on_tile

    async def denoise(
        self,
        task: TileTask,
        crops: Sequence[Any],
        prompts: Sequence[Any],
        on_steps: Callable[[int], None],
    ) -> Any:
        """Reports every step, then gives the first crop back."""
        self.tasks.append(task)
        for done in range(1, task.params.steps + 1):
            await asyncio.sleep(0)
            on_steps(done)
        if self._on_tile is not None:
            await self._on_tile(task)
        return crops[0]

    async def ready(self) -> bool:
        """Always."""
        return True


class IdentityRunner:
    """An `engine.Runner` that gives each control crop back after its steps.

    Attributes:
        rows: What is kept for each entry, by its id.
        rows_skipped: None.
    """

    def __init__(self) -> None:
        self.rows: dict[int, Levels] = {}
        self.rows_skipped = 0

    def plan(self, task: TileTask, inputs: TileInputs) -> tuple[int, Bucket]:
        """The steps of a task and its bucket."""
        params, tile = task.params, task.tile
        tokens = len(inputs.prompts[0].sequence) if inputs.prompts else 0
        return params.steps, Bucket(tile.height, tile.width, tokens, params.lora, params.lora_scale)

    def open(self) -> Mapping[tuple[Kind, int], float]:
        """Nothing to warm, nothing measured: a batch costs what its rows cost."""
        return {}

    def encode(self, entries: Sequence[Entry], inputs: Sequence[TileInputs], size: int) -> None:
        """Keeps the first crop of each."""
        self.rows |= {
            entry.id: given.controls[0] for entry, given in zip(entries, inputs, strict=True)
        }

    def probe(self) -> None:
        """Alive."""

    def step(self, entries: Sequence[Entry], size: int) -> None:
        """Changes nothing; an entry that was never encoded is a KeyError."""
        for entry in entries:
            self.rows[entry.id] = self.rows[entry.id]

    def decode(self, entries: Sequence[Entry], size: int) -> list[Levels | TesseraError]:
        """The crops."""
        return [self.rows[entry.id] for entry in entries]

    def drop(self, entry_id: int) -> None:
        """Forgets the crop."""
        self.rows.pop(entry_id, None)


class PacedRunner(IdentityRunner):
    """An `IdentityRunner` that takes its time, logs its turns and fails where it is told to.

    Args:
        step_s: Seconds that each step of a batch takes.
        fail_at: (tile index, step) pairs, steps counting from 0: a batch that holds one of them raises.
        nan_at: (tile index, step) pairs: from that step on the tile is NaN, which its decoding finds.
        on_turn: Called on the engine's thread before each turn; may block it, and may raise to fail it.

    Attributes:
        turns: Every turn begun so far: its kind and the indices of its tiles.
    """

    def __init__(
        self,
        step_s: float = 0,
        fail_at: Collection[tuple[int, int]] = (),
        nan_at: Collection[tuple[int, int]] = (),
        on_turn: Callable[[Kind, Sequence[Entry]], None] | None = None,
    ) -> None:
        super().__init__()
        self.turns: list[tuple[Kind, tuple[int, ...]]] = []
        self._step_s = step_s
        self._fail_at = fail_at
        self._nan_at = nan_at
        self._on_turn = on_turn
        self._spoilt: set[int] = set()

    def encode(self, entries: Sequence[Entry], inputs: Sequence[TileInputs], size: int) -> None:
        """Logs the turn and keeps the crops."""
        self._begin(Kind.ENCODE, entries)
        super().encode(entries, inputs, size)

    def step(self, entries: Sequence[Entry], size: int) -> None:
        """Logs the turn, waits, then fails or spoils what it was told to."""
        self._begin(Kind.STEP, entries)
        time.sleep(self._step_s)
        for entry in entries:
            if (entry.task.index, entry.steps_done) in self._fail_at:
                raise RuntimeError(f"told to fail at step {entry.steps_done}")
        super().step(entries, size)
        for entry in entries:
            if (entry.task.index, entry.steps_done) in self._nan_at:
                self._spoilt.add(entry.id)

    def decode(self, entries: Sequence[Entry], size: int) -> list[Levels | TesseraError]:
        """Logs the turn; gives the crops back, or an error for a spoilt tile."""
        self._begin(Kind.DECODE, entries)
        return [
            GarbageTile(f"tile {entry.task.index} came out as NaN")
            if entry.id in self._spoilt
            else crop
            for entry, crop in zip(entries, super().decode(entries, size), strict=True)
        ]

    def drop(self, entry_id: int) -> None:
        """Forgets the crop and that it was spoilt."""
        super().drop(entry_id)
        self._spoilt.discard(entry_id)

    def _begin(self, kind: Kind, entries: Sequence[Entry]) -> None:
        self.turns.append((kind, tuple(entry.task.index for entry in entries)))
        if self._on_turn is not None:
            self._on_turn(kind, entries)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a `RooflineRunner` did: the kind, its batch size, and of which requests' tiles.

    `started_s` is of the machine's monotonic clock, so turns of several processes can be laid side by side;
    `took_s` is what an accelerator would have taken, however late the sleep ended.
    """

    kind: Kind
    size: int
    tiles: tuple[tuple[str, int], ...]
    started_s: float
    took_s: float


def roofline_s(side_px: int, rows: int) -> float:
    """Seconds of one step of FLUX.1-dev with a ControlNet of 5 double blocks on an H200, in bfloat16.

    Work grows with the tokens and, in attention, with their square: 23.5, 45.8 and 81.3 TFLOP for tiles of 512,
    768 and 1024 px and 512 text tokens; 790 TFLOP/s are sustained. Assumed: fewer than 2,500 tokens do not fill
    the card and take as long as so many, so that two tiles of 512 px cost 1.25 times what one costs.
    """
    tokens = (side_px // 16) ** 2 + 512
    tflop = tokens * (0.01413 + 7.63e-7 * tokens)
    return tflop * max(rows, 2458 / tokens) / 790


class RooflineRunner(IdentityRunner):
    """An `IdentityRunner` that sleeps for as long as an accelerator would compute.

    Args:
        side_px: Side of the tiles as which they are paced, whatever size they have.
        settings: Of the engine: the batch sizes.
        pace: Seconds slept for each second of the accelerator; 0 is idle.
        on_turn: Told of each turn when it has ended, on the engine's thread.

    Encoding and decoding a tile are assumed to take a step's time each.
    """

    def __init__(
        self,
        side_px: int,
        settings: EngineSettings,
        pace: float = 1,
        on_turn: Callable[[Turn], None] | None = None,
    ) -> None:
        super().__init__()
        self._side_px = side_px
        self._pace = pace
        self._on_turn = on_turn
        self._sizes = {
            Kind.ENCODE: static_sizes(settings.vae_batch, settings.exact),
            Kind.STEP: static_sizes(settings.max_batch, settings.exact),
            Kind.DECODE: static_sizes(settings.vae_batch, settings.exact),
        }

    def open(self) -> Mapping[tuple[Kind, int], float]:
        """The seconds of each kind of work at each size."""
        return {
            (kind, size): self._pace * roofline_s(self._side_px, size)
            for kind, sizes in self._sizes.items()
            for size in sizes
        }

    def encode(self, entries: Sequence[Entry], inputs: Sequence[TileInputs], size: int) -> None:
        """Takes its time and keeps the crops."""
        self._take(Kind.ENCODE, entries, size)
        super().encode(entries, inputs, size)

    def step(self, entries: Sequence[Entry], size: int) -> None:
        """Takes its time."""
        self._take(Kind.STEP, entries, size)
        super().step(entries, size)

    def decode(self, entries: Sequence[Entry], size: int) -> list[Levels | TesseraError]:
        """Takes its time; gives the crops back."""
        self._take(Kind.DECODE, entries, size)
        return super().decode(entries, size)

    def _take(self, kind: Kind, entries: Sequence[Entry], size: int) -> None:
        started_s, took_s = time.monotonic(), self._pace * roofline_s(self._side_px, size)
        time.sleep(took_s)
        if self._on_turn is not None:
            tiles = tuple((entry.task.request_id, entry.task.index) for entry in entries)
            self._on_turn(Turn(kind, size, tiles, started_s, took_s))


def identity_engine(max_batch: int = 4, max_waiting: int = 64) -> Engine:
    """Starts an engine that gives each crop back; the caller closes it."""
    settings = EngineSettings(max_batch=max_batch, max_waiting=max_waiting)
    return Engine(IdentityRunner(), Scheduler(settings))
