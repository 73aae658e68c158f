"""What is known of followed jobs: which picture is where, how far those at work are, how long it may take.

It is fed by what the server lists and tells, and refuses to know how it is shown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serve_app.client import ENDED, JobEvent, Json

Key = tuple[str, int]
"""A job and the number of its item."""

_STATUS = {
    "item.started": "running",
    "item.progress": "running",
    "item.succeeded": "succeeded",
    "item.failed": "failed",
    "item.cancelled": "cancelled",
    "item.retried": "queued",
}


@dataclass
class Row:
    """A picture at work."""

    name: str
    tiles_done: int = 0
    tiles_total: int = 0


class Board:
    """The state of some jobs together.

    Args:
        clock: Seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self.running: dict[Key, Row] = {}
        self._clock = clock
        self._status: dict[Key, str] = {}
        self._names: dict[Key, str] = {}
        self._known: dict[str, int] = {}
        self._begun_at = clock()
        self._begun_with = 0.0
        self._told_left_s: float | None = None

    @property
    def total(self) -> int:
        """Pictures in all."""
        return len(self._status)

    @property
    def ended(self) -> int:
        """Pictures of which nothing more will come."""
        return sum(self.counts[status] for status in ENDED)

    def add(self, job: Json, items: Iterable[Json]) -> None:
        """Takes a job as it stands; events up to its last are in it."""
        self._known[job["id"]] = job["last_event"]
        for item in items:
            key = (job["id"], item["number"])
            self._names[key] = item["name"]
            self._move(key, item["status"])
            if item["status"] == "running":
                row = self.running[key]
                row.tiles_done, row.tiles_total = item["tiles_done"], item["tiles_total"]
        self._begun_at, self._begun_with = self._clock(), self._done()

    def take(self, job_id: str, event: JobEvent) -> None:
        """Takes what happened; what is known already is passed over."""
        if event.sequence <= self._known.get(job_id, 0) or event.kind not in _STATUS:
            return
        key = (job_id, event.data["number"])
        self._names.setdefault(key, event.data["name"] if "name" in event.data else str(key[1]))
        self._move(key, _STATUS[event.kind])
        if event.kind == "item.progress":
            row = self.running[key]
            row.tiles_done, row.tiles_total = event.data["tiles_done"], event.data["tiles_total"]
            self._told_left_s = event.data.get("eta_s")

    def name(self, job_id: str, number: int) -> str:
        """What a picture is called."""
        return self._names.get((job_id, number), str(number))

    def left_s(self) -> float | None:
        """Seconds that are left at the pace since watching began; the server's word before there is one."""
        done = self._done()
        took_s = self._clock() - self._begun_at
        if done - self._begun_with <= 0 or took_s <= 0:
            return self._told_left_s if len(self._known) == 1 else None
        return took_s / (done - self._begun_with) * (self.total - done)

    def _move(self, key: Key, status: str) -> None:
        before = self._status.get(key)
        if before == status:
            return
        if before is not None:
            self.counts[before] -= 1
        self.counts[status] += 1
        self._status[key] = status
        if status == "running":
            self.running[key] = Row(self._names[key])
        else:
            self.running.pop(key, None)

    def _done(self) -> float:
        """Pictures that have ended, with the parts of those at work."""
        parts = (
            row.tiles_done / row.tiles_total for row in self.running.values() if row.tiles_total
        )
        return self.ended + sum(parts)
