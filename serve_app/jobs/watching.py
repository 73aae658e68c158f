"""Tells many followers of a job what happens in it, and asks the store once for all of them.

Each process polls a job that it has followers of. What is new stands in a short memory that all of them read at
their own place; who falls behind it reads from the store. So a follower costs a number, however slow it is, and
none misses an event. This module refuses to know how followers are spoken to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serve_app.errors import NotFound
from serve_app.jobs.records import Event, JobRecord
from serve_app.jobs.store import Store

log = logging.getLogger("tessera.jobs")

REMEMBERED = 1000
"""Events of a job in memory."""
PAGE = 200
"""Events that one follower takes at a time."""
FINISHED = "job.finished"
_READERS = 8  # followers that read from the store at once
_PATIENCE_S = 5.0  # after a look that failed


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and the seconds that its job needed from then on at its own pace; None where unknown."""

    event: Event
    eta_s: float | None = None


class Watch:
    """What one job's followers share.

    Args:
        job: As it stood when the first of them came.
        remembered: Events to keep in memory.
    """

    def __init__(self, job: JobRecord, remembered: int) -> None:
        self.job = job
        self.recent: deque[Told] = deque(maxlen=remembered)
        self.last = job.last_event
        self.finished = job.status.ended
        self.gone = False
        self.followers = 0
        self.changed = asyncio.Event()
        self._parts: dict[int, float] = {}

    def take(self, events: list[Event], job: JobRecord, now: float) -> None:
        """Remembers what is new, and wakes who waits."""
        self.job = job
        for event in events:
            self._note(event)
            self.recent.append(Told(event, self._eta_s(now)))
            self.last = event.sequence
            self.finished = event.kind == FINISHED
        self.wake()

    def wake(self) -> None:
        """Lets everybody look again."""
        waiting, self.changed = self.changed, asyncio.Event()
        waiting.set()

    def after(self, sequence: int) -> list[Told] | None:
        """What came after an event; None where it is not remembered any more."""
        if sequence >= self.last:
            return []
        if not self.recent or self.recent[0].event.sequence > sequence + 1:
            return None
        first = sequence + 1 - self.recent[0].event.sequence
        return [self.recent[place] for place in range(first, min(first + PAGE, len(self.recent)))]

    def _note(self, event: Event) -> None:
        """Keeps how far each running item is."""
        if event.kind == "item.progress":
            self._parts[event.data["number"]] = event.data["tiles_done"] / max(
                1, event.data["tiles_total"]
            )
        elif event.kind not in ("item.preview", "job.created"):
            self._parts.pop(event.data.get("number", -1), None)

    def _eta_s(self, now: float) -> float | None:
        counts, started_at = self.job.counts, self.job.started_at
        done = counts.total - counts.queued - counts.running + sum(self._parts.values())
        if started_at is None or done <= 0:
            return None
        return max(0.0, (now - started_at) / done * (counts.total - done))


class Hub:
    """Followers of jobs in one process.

    Args:
        store: Where jobs are.
        poll_s: Seconds between two looks at a followed job.
        clock: Seconds since 1970, the store's.
        remembered: Events of a job in memory.
    """

    def __init__(
        self,
        store: Store,
        poll_s: float,
        clock: Callable[[], float] = time.time,
        remembered: int = REMEMBERED,
    ) -> None:
        self._store = store
        self._poll_s = poll_s
        self._clock = clock
        self._remembered = remembered
        self._watches: dict[str, Watch] = {}
        self._polling: set[asyncio.Task[None]] = set()
        self._readers = asyncio.Semaphore(_READERS)

    @property
    def watched(self) -> int:
        """Jobs that are polled."""
        return len(self._watches)

    async def follow(
        self, job: JobRecord, after: int = 0, keep_alive_s: float = 15.0
    ) -> AsyncIterator[list[Told]]:
        """What happens in a job, in order and without a gap; ends with the job.

        Args:
            job: Which.
            after: Sequence number of the last event that is known already.
            keep_alive_s: Longest silence; then an empty list is given.

        Yields:
            Some events, or none where nothing has happened for `keep_alive_s`.
        """
        async with self._watching(job) as watch:
            while True:
                changed = watch.changed
                found = watch.after(after)
                if found is None:
                    found = await self._read(job.id, after)
                if found:
                    after = found[-1].event.sequence
                    yield found
                elif watch.gone or (watch.finished and after >= watch.last):
                    return
                elif not await _within(changed, keep_alive_s):
                    yield []

    async def _read(self, job_id: str, after: int) -> list[Told]:
        async with self._readers:
            return [Told(event) for event in await self._store.events(job_id, after, PAGE)]

    @asynccontextmanager
    async def _watching(self, job: JobRecord) -> AsyncIterator[Watch]:
        watch = self._watches.get(job.id)
        if watch is None:
            watch = self._watches[job.id] = Watch(job, self._remembered)
            polling = asyncio.create_task(self._poll(job.id, watch))
            self._polling.add(polling)
            polling.add_done_callback(self._polling.discard)
        watch.followers += 1
        try:
            yield watch
        finally:
            watch.followers -= 1
            if not watch.followers:
                del self._watches[job.id]

    async def _poll(self, job_id: str, watch: Watch) -> None:
        """Looks for what is new for as long as somebody follows.

        It ends by itself: a query that is cancelled twice, here and by a loop that closes, leaves SQLAlchemy's
        aiosqlite (2.1) waiting for a thread that has ended.
        """
        while watch.followers:
            pause_s = self._poll_s
            try:
                found = await self._store.events(job_id, watch.last)
                if found:
                    watch.take(found, await self._store.job(job_id), self._clock())
                    continue
                await self._store.job(job_id)
            except NotFound:  # its time was over
                watch.gone = True
                watch.wake()
                return
            except Exception as error:
                log.warning("jobs.store_away", extra={"cause": repr(error)})
                pause_s = max(pause_s, _PATIENCE_S)
            await asyncio.sleep(pause_s)


async def _within(changed: asyncio.Event, longest_s: float) -> bool:
    try:
        async with asyncio.timeout(longest_s):
            await changed.wait()
    except TimeoutError:
        return False
    return True
