"""What the routes of jobs are handed: the store, the blobs and one hub, opened when first wanted.

It refuses to know HTTP and where the store is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from serve_app.errors import NotFound
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.deposit import deposit
from serve_app.jobs.records import JobRecord, Quotas
from serve_app.jobs.store import Store
from serve_app.jobs.watching import Hub
from serve_app.settings import JobSettings

_JOB_ID = re.compile(r"job_[0-9a-z]{26}")


class Desk:
    """The way to jobs.

    Args:
        open_store: Called once, on the event loop that serves requests.
        blobs: Where files are.
        settings: Of jobs.
    """

    def __init__(
        self, open_store: Callable[[], Awaitable[Store]], blobs: Blobs, settings: JobSettings
    ) -> None:
        self.blobs = blobs
        self.settings = settings
        self.quotas = Quotas(settings.tenant_jobs, settings.tenant_items, settings.tenant_pixels)
        self._open_store = open_store
        self._opening = asyncio.Lock()
        self._store: Store | None = None
        self._hub: Hub | None = None

    async def store(self) -> Store:
        """The store; opening it that failed is tried again by whoever asks next."""
        if self._store is None:
            async with self._opening:
                if self._store is None:
                    self._store = await self._open_store()
        return self._store

    async def hub(self) -> Hub:
        """The process's one hub."""
        store = await self.store()
        if self._hub is None:
            self._hub = Hub(store, self.settings.poll_s)
        return self._hub

    async def job(self, job_id: str, tenant: str) -> JobRecord:
        """A tenant's job; raises NotFound."""
        if _JOB_ID.fullmatch(job_id) is None:
            raise NotFound(f"there is no job {job_id[:40]!r}")
        return await (await self.store()).job(job_id, tenant)

    async def keep(self, data: bytes) -> str:
        """Keeps a file for a job that is about to be submitted; gives its blob's name."""
        return (await deposit(await self.store(), self.blobs, data)).name
