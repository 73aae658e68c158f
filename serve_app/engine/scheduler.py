"""Decides, before every turn of the engine, what runs next. Touches no tensor and no thread.

The order: decode what is finished, since that answers a caller and frees a place; then let waiting tiles
join while there are places; then run one step of all that are running. So a tile joins or leaves between any
two steps, whatever step its neighbours in the batch are at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from serve_app.engine.task import Entry, Phase
from serve_app.errors import Busy


class Kind(Enum):
    """What a turn does."""

    ENCODE = auto()
    STEP = auto()
    DECODE = auto()


@dataclass(frozen=True, slots=True)
class Work:
    """One turn of the engine: a kind of work and the entries that share it."""

    kind: Kind
    entries: tuple[Entry, ...]


class Scheduler:
    """Keeps the entries and picks the next work.

    Args:
        max_batch: Most tiles that run together.
        max_waiting: Most tiles that wait for a place; one more is refused.
        vae_batch: Most tiles that are encoded or decoded together; few, so that steps are not held up.
    """

    def __init__(self, max_batch: int, max_waiting: int, vae_batch: int = 1) -> None:
        self._max_batch = max_batch
        self._vae_batch = vae_batch
        self._max_waiting = max_waiting
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def count(self, phase: Phase) -> int:
        """How many entries stand in a phase."""
        return sum(entry.phase is phase for entry in self._entries.values())

    def add(self, entry: Entry) -> None:
        """Accepts an entry.

        Raises:
            Busy: if too many are waiting already.
        """
        if self.count(Phase.WAITING) >= self._max_waiting:
            raise Busy(f"{self._max_waiting} tiles are waiting at this engine", retry_after_s=1)
        self._entries[entry.id] = entry

    def drop(self, ids: Iterable[int]) -> None:
        """Forgets entries, wherever they stand; unknown ones are ignored."""
        for entry_id in ids:
            self._entries.pop(entry_id, None)

    def next(self) -> Work | None:
        """The next work, or None where nothing is to be done."""
        if finishing := self._oldest(Phase.FINISHING, self._vae_batch):
            return Work(Kind.DECODE, finishing)
        running = self._oldest(Phase.RUNNING, self._max_batch)
        free = min(self._max_batch - len(running), self._vae_batch)
        bucket = running[0].bucket if running else None
        if free and (joining := self._oldest(Phase.WAITING, free, bucket)):
            return Work(Kind.ENCODE, joining)
        return Work(Kind.STEP, running) if running else None

    def settle(self, work: Work, failed: Collection[int]) -> None:
        """Notes that a work was done: moves its entries on and forgets the failed ones."""
        self.drop(failed)
        for entry in work.entries:
            if work.kind is Kind.DECODE:
                self.drop([entry.id])
                continue
            entry.steps_done += work.kind is Kind.STEP
            done = entry.steps_done >= entry.steps
            entry.phase = Phase.FINISHING if done else Phase.RUNNING

    def _oldest(
        self, phase: Phase, limit: int, bucket: tuple[int, int] | None = None
    ) -> tuple[Entry, ...]:
        """The first arrivals in a phase, all of one bucket: the given one, or that of the first."""
        found: list[Entry] = []
        for entry in self._entries.values():
            if entry.phase is phase and bucket in (None, entry.bucket):
                bucket = entry.bucket
                found.append(entry)
                if len(found) == limit:
                    break
        return tuple(found)
