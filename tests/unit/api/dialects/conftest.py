"""The door with all dialects over a real store, real blobs, and a runner that is told when to go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from serve_app.api import create_api
from serve_app.api.jobs.desk import Desk
from serve_app.contracts import UpscaleParams, UpscaleRequest
from serve_app.errors import TesseraError
from serve_app.jobs.attempt import problem
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.deposit import deposit
from serve_app.jobs.records import Lease, ResultRecord
from serve_app.jobs.store import Store
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler, jpeg_bytes, photo_like, png_bytes
from tests.unit.api.live import serving

PNG = png_bytes(photo_like(6, 8, seed=1))
PREVIEW = jpeg_bytes(photo_like(6, 8, seed=2))
JOBS = {"poll_s": 0.01}


class Counter:
    """The whole door on loopback.

    Args:
        store: Where jobs are.
        blobs: Where files are.
        settings: Of the door.

    Attributes:
        go_on: Until it is set, a runner's item stands at one tile of two.
        seen: Set when an item stands there.
    """

    def __init__(self, store: Store, blobs: Blobs, settings: Settings) -> None:
        async def opened() -> Store:
            return store

        self.store, self.blobs, self.upscaler = store, blobs, FakeUpscaler()
        self.app: FastAPI = create_api(
            self.upscaler, settings, desk=Desk(opened, blobs, settings.jobs)
        )
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.seen = asyncio.Event()
        self.url = ""

    async def run(self) -> None:
        """Works like a runner: leases, tells, and hands in."""
        while True:
            for lease in await self.store.claim("runner", 60, 1):
                await self._work(lease)
            await asyncio.sleep(0.01)

    async def _work(self, lease: Lease) -> None:
        preview = await deposit(self.store, self.blobs, PREVIEW)
        await self.store.progress(lease, 1, 2, preview.name)
        self.seen.set()
        while not self.go_on.is_set():
            if (await self.store.heartbeat([lease], 60)).cancelled:
                await self.store.cancelled(lease)
                return
            await asyncio.sleep(0.01)
        item = lease.item
        params = UpscaleParams.parse(item.params)
        try:
            asked = UpscaleRequest(
                image=await self.blobs.get(item.source or ""),
                params=params,
                priority=lease.priority,
                tenant=lease.tenant,
                request_id=item.job_id,
            )
            made = await self.upscaler.upscale(asked)
        except TesseraError as error:
            await self.store.fail(lease, problem(error), retryable=False)
            return
        blob = await deposit(self.store, self.blobs, made.image)
        size = (made.width, made.height, blob.size_bytes)
        await self.store.succeed(lease, ResultRecord(blob.name, made.media_type, *size))


def settings_of(**changes: Any) -> Settings:
    return Settings.parse({"images": {"upload_bytes": 50_000}, "jobs": JOBS} | changes)


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[Counter]:
    store = await Store.open(f"sqlite:///{tmp_path}/jobs.db")
    found = Counter(store, Blobs(str(tmp_path / "blobs")), settings_of())
    running = asyncio.create_task(found.run())
    async with serving(found.app) as port:
        found.url = f"http://127.0.0.1:{port}"
        yield found
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await store.close()
