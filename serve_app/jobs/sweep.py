"""Lets go of what nobody needs any more: jobs past their time, and files that nothing refers to.

Sweeps by several processes at once would do no harm, only needless work; so one of them leads. It refuses to
know what blobs mean, and where they are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.jobs.blobs import Blobs
from serve_app.jobs.patience import being_cancelled
from serve_app.jobs.store import Store
from serve_app.settings import JobSettings

logger = logging.getLogger("tessera.jobs")

LEADER = "sweep"
_AT_ONCE = 500  # rows of one statement
_LEAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep let go: jobs, blobs that nothing referred to, and half-written files; and files it found."""

    jobs: int
    blobs: int
    partial_files: int
    strange_files: int


class Sweeper:
    """Sweeps from time to time, where no other process does.

    Args:
        store: Knows what is held.
        blobs: Where files are.
        settings: How long things are kept.
        name: Of this process among all.
        clock: Seconds since 1970, the store's.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        settings: JobSettings,
        name: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._settings = settings
        self._name = name
        self._clock = clock

    async def run(self) -> None:
        """Sweeps until it is cancelled; a sweep that fails is tried again at its next time."""
        while not being_cancelled():
            try:
                await self.once()
            except Exception as error:
                logger.warning("jobs.sweep_failed", extra={"cause": repr(error)})
            await asyncio.sleep(self._settings.sweep_s)

    async def once(self) -> Swept | None:
        """Sweeps once; None where another process leads."""
        if not await self._store.lead(LEADER, self._name, self._settings.sweep_s + _LEAD_S):
            return None
        jobs = await self._old_jobs() + await self._too_many_bytes()
        strange = await self._strange_files()
        blobs = await self._loose_blobs()
        partial = await self._blobs.tidy(self._clock() - self._settings.orphan_grace_s)
        swept = Swept(jobs, blobs, partial, strange)
        logger.info("jobs.swept", extra={"jobs": jobs, "blobs": blobs, "strange_files": strange})
        return swept

    async def _old_jobs(self) -> int:
        gone = 0
        while ids := await self._store.ended_jobs(self._settings.retention_s):
            for job_id in ids:
                gone += await self._store.delete_job(job_id)
        return gone

    async def _too_many_bytes(self) -> int:
        """The jobs that ended first go, until what the others hold fits."""
        most = self._settings.retention_bytes
        gone = 0
        while most is not None and await self._store.held_bytes() > most:
            oldest = await self._store.ended_jobs(0, limit=1)
            if not oldest:
                logger.warning("jobs.unfinished_jobs_exceed_retention_bytes")
                break
            gone += await self._store.delete_job(oldest[0])
        return gone

    async def _strange_files(self) -> int:
        """Files without a row: their rows went with a database that was restored, or lost."""
        grace = self._settings.orphan_grace_s
        found, adopted = [], 0
        async for kept in self._blobs.files():
            if kept.written_at < self._clock() - grace:
                found.append((kept.name, kept.size_bytes, kept.written_at))
            if len(found) == _AT_ONCE:
                adopted += await self._store.adopt_blobs(found)
                found = []
        return adopted + await self._store.adopt_blobs(found)

    async def _loose_blobs(self) -> int:
        grace, gone = self._settings.orphan_grace_s, 0
        while names := await self._store.unreferenced_blobs(grace, _AT_ONCE):
            swept = [await self._store.forget_blob(n, grace, self._blobs.delete) for n in names]
            gone += sum(swept)
            if not any(swept):  # all were wanted meanwhile
                break
        return gone
