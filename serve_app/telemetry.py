"""An engine's metrics, through Ray: each node's agent exports them to Prometheus, see docs/metrics.md.

Histograms are told turn by turn; all else is read off the engine at most once a second, so that a turn pays
microseconds. It refuses to know pixels, requests and what the accelerator is.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Protocol

from ray.serve import metrics

from serve_app.contracts import Priority
from serve_app.engine.scheduler import Work
from serve_app.engine.task import Bucket, Entry, Kind
from serve_app.models.cost import StepCost
from serve_app.settings import ModelSettings

TILES_WAITING = "tessera_tiles_waiting"
TILES_IN_ENGINE = "tessera_tiles_in_engine"
TILES = "tessera_tiles"
STEP_ROWS = "tessera_step_rows"
TURN_SECONDS = "tessera_turn_seconds"
BUSY_SECONDS = "tessera_busy_seconds"
ROWS_SKIPPED = "tessera_rows_skipped"
STEP_TFLOPS = "tessera_step_tflops"

_SECONDS = [0.001 * 2**n for n in range(15)]  # 1 ms to 16 s
_ROWS = [1, 2, 4, 8, 16, 32]
_INTERVAL_S = 1.0


class Watched(Protocol):
    """What is read off an engine; its counts only rise."""

    tiles_done: int
    tiles_cancelled: int
    tiles_failed: int
    tiles_late: int

    @property
    def load(self) -> int:
        """Tiles accepted and not yet answered."""
        ...

    @property
    def rows_skipped(self) -> int:
        """Rows of steps that a residual cache has spared."""
        ...

    def waiting(self, priority: Priority) -> int:
        """Tiles of a class that wait for a place."""
        ...


class EngineMetrics:
    """Exports what an engine does; an instance is the engine's `observe`.

    To be made in a replica of Ray Serve, whose deployment, replica and application become the metrics' tags.

    Attributes:
        entry_flop: Operations of one step of an entry, as `flop_model` gives; None where nobody knows.
    """

    def __init__(self) -> None:
        self.entry_flop: Callable[[Entry], float] | None = None
        self._engine: Watched | None = None
        self._telling = Lock()
        self._told_at = float("-inf")
        self._counted: dict[str, float] = defaultdict(float)  # what the counters stand at
        self._busy_s: dict[str, float] = defaultdict(float)  # of each kind, ever
        self._flop = self._step_s = 0.0  # since they were told
        self._waiting = metrics.Gauge(TILES_WAITING, "Tiles that wait for a place.", ("priority",))
        self._load = metrics.Gauge(TILES_IN_ENGINE, "Tiles accepted and not yet answered.")
        self._tflops = metrics.Gauge(STEP_TFLOPS, "TFLOP/s of the steps of the last second.")
        self._tiles = metrics.Counter(TILES, "Tiles that left the engine, and how.", ("outcome",))
        self._skipped = metrics.Counter(ROWS_SKIPPED, "Rows that a residual cache spared a step.")
        self._rows = metrics.Histogram(STEP_ROWS, "Tiles that shared a step.", _ROWS)
        self._seconds = metrics.Histogram(TURN_SECONDS, "Seconds of a turn.", _SECONDS, ("kind",))
        self._busy = metrics.Counter(BUSY_SECONDS, "Seconds of all turns together.", ("kind",))

    def watch(self, engine: Watched) -> None:
        """Tells of this engine from now on."""
        self._engine = engine
        self.tell()

    def __call__(self, work: Work, seconds: float) -> None:
        """Notes a turn. Called on the engine's thread."""
        kind = work.kind.name.lower()
        self._seconds.observe(seconds, {"kind": kind})
        self._busy_s[kind] += seconds
        if work.kind is Kind.STEP:
            self._rows.observe(len(work.entries))
            if self.entry_flop is not None:
                self._flop += sum(map(self.entry_flop, work.entries))
                self._step_s += seconds
        idle = self._engine is not None and not self._engine.load
        if idle or time.monotonic() - self._told_at >= _INTERVAL_S:
            self.tell()

    def tell(self) -> None:
        """Reads the engine; also to be called now and then while it has no turns."""
        with self._telling:
            self._told_at = time.monotonic()
            if (engine := self._engine) is None:
                return
            for priority in Priority:
                self._waiting.set(engine.waiting(priority), {"priority": priority.value})
            self._load.set(engine.load)
            for outcome in ("done", "cancelled", "failed", "late"):
                self._count(self._tiles, getattr(engine, f"tiles_{outcome}"), outcome=outcome)
            self._count(self._skipped, engine.rows_skipped)
            for kind, total_s in list(self._busy_s.items()):
                self._count(self._busy, total_s, kind=kind)
            if self.entry_flop is not None:
                self._tflops.set(self._flop / self._step_s / 1e12 if self._step_s else 0)
            self._flop = self._step_s = 0

    def _count(self, counter: metrics.Counter, total: float, **tags: str) -> None:
        """Brings a counter to a total."""
        name = next(iter(tags.values()), ROWS_SKIPPED)
        if total > self._counted[name]:
            counter.inc(total - self._counted[name], tags)
            self._counted[name] = total


def flop_model(settings: ModelSettings) -> Callable[[Entry], float]:
    """The operations of a step of any entry, counted from the model's configuration.

    Raises:
        ConfigurationError: if the model cannot be found.
    """
    cost = StepCost.read(settings)

    @lru_cache(256)
    def count(bucket: Bucket, controls: tuple[str, ...], passes: int) -> float:
        return cost.flop(bucket.shape, controls, bucket.text_tokens, passes)

    def entry_flop(entry: Entry) -> float:
        params = entry.task.params
        names = tuple(control.name for control in params.all_controls)
        return count(entry.bucket, names, 2 if params.true_cfg_scale > 1 else 1)

    return entry_flop
