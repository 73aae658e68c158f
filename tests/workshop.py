"""Jobs in one process: a store in a file, blobs in a folder, runners before an engine that computes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_app.contracts import UpscaleParams, Upscaler, UpscaleRequest, UpscaleResult
from serve_app.engine.task import TileTask
from serve_app.fetch.client import Fetcher
from serve_app.jobs.attempt import Attempt, Conduct, Wrap
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.records import ItemRecord, JobRecord, NewItem, NewJob
from serve_app.jobs.runner import Attempting, Runner
from serve_app.jobs.store import Store
from serve_app.levels import Levels
from serve_app.local import LocalDenoiser, LocalFinisher, LocalPreparer
from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL, photo_like, png_bytes
from serve_app.testing_engine import identity_engine
from serve_app.upscale import Conductor

PHOTO = png_bytes(photo_like(300, 420))
"""2 x 2 tiles of the fake model."""
PARAMS = {"scale": 1, "steps": 2, "seed": 5}
TILES = 4


class LocalPixels:
    """Satisfies `checkpoints.Pixels` where references are the pixels themselves."""

    async def read(self, ref: Levels) -> Levels:
        return ref

    async def put(self, levels: Levels) -> Levels:
        return levels


@dataclass
class Counting:
    """A denoiser that gives each crop back, counts, and does as it is told.

    Attributes:
        computed: The index of each tile that came to its end here.
        gate: Each tile beyond `free` waits here.
        free: Tiles that need not wait.
        errors: Raised by the next tiles, one each.
    """

    inner: LocalDenoiser
    computed: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    free: int | None = None
    errors: list[Exception] = field(default_factory=list)
    begun: int = 0

    async def denoise(
        self,
        task: TileTask,
        crops: Sequence[Any],
        prompts: Sequence[Any],
        on_steps: Callable[[int], None],
    ) -> Any:
        self.begun += 1
        if self.free is not None and self.begun > self.free:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        found = await self.inner.denoise(task, crops, prompts, on_steps)
        self.computed.append(task.index)
        return found

    async def ready(self) -> bool:
        return True


@dataclass
class Clock:
    """The store's clock; it may be put forward, so that leases run out."""

    ahead_s: float = 0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass
class Workshop:
    """All that runners need."""

    store: Store
    blobs: Blobs
    denoiser: Counting
    settings: Settings
    fetcher: Fetcher
    clock: Clock
    runners: list[tuple[Runner, asyncio.Task[None]]] = field(default_factory=list)

    def conduct(self, wrap: Wrap) -> Upscaler:
        preparer = LocalPreparer(self.settings.images, None)
        denoiser, finisher = wrap(self.denoiser), LocalFinisher(self.settings.images)
        return Conductor([FAKE_MODEL], preparer, None, denoiser, finisher, self.settings.requests)

    def attempt(self, conduct: Conduct | None = None) -> Attempt:
        parts = (self.store, self.blobs, self.fetcher, conduct or self.conduct)
        return Attempt(*parts, [FAKE_MODEL], LocalPixels(), self.settings)

    def start(self, name: str = "one", attempt: Attempting | None = None) -> Runner:
        runner = Runner(self.store, attempt or self.attempt(), self.settings.jobs, name)
        self.runners.append((runner, asyncio.create_task(runner.run())))
        return runner

    async def kill(self) -> None:
        """Every runner dies without a word, and its leases run out."""
        for runner, task in self.runners:
            for running in runner._running:
                running.task.cancel()  # first, so that nothing is handed back
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.runners.clear()
        self.clock.ahead_s += 2 * self.settings.jobs.lease_s

    async def submit(self, *pictures: bytes, **given: Any) -> JobRecord:
        kept = [(await self.blobs.put(picture)).name for picture in pictures or (PHOTO,)]
        items = [NewItem(f"{at}.png", PARAMS | given, source=name) for at, name in enumerate(kept)]
        return await self.submit_items(*items)

    async def submit_items(self, *items: NewItem) -> JobRecord:
        return (await self.store.submit(NewJob("anonymous"), items))[0]

    async def item(self, job: JobRecord, number: int = 0) -> ItemRecord:
        return await self.store.item(job.id, number)

    async def ended(self, job: JobRecord) -> list[ItemRecord]:
        async def over() -> bool:
            return (await self.store.job(job.id)).status.ended

        await until(over)
        return await self.store.items(job.id)

    async def kept(self, job: JobRecord, tiles: int) -> None:
        """Waits until so many tiles of the job's first item are kept."""

        async def enough() -> bool:
            return len(self.denoiser.computed) >= tiles and await self.tiles_held(job) >= tiles

        await until(enough)

    async def tiles_held(self, job: JobRecord) -> int:
        async with self.store._database.read() as connection:
            query = "SELECT count(*) FROM held WHERE role = 'tile' AND job_id = ?"
            return (await connection.exec_driver_sql(query, (job.id,))).scalar_one()

    async def directly(self, picture: bytes = PHOTO, **given: Any) -> UpscaleResult:
        request = UpscaleRequest(
            image=picture, params=UpscaleParams.parse(PARAMS | given), request_id="direct"
        )
        computed = list(self.denoiser.computed)
        free, self.denoiser.free = self.denoiser.free, None
        result = await self.conduct(lambda inner: inner).upscale(request)
        self.denoiser.computed, self.denoiser.free = computed, free
        return result


async def until(holds: Callable[[], Awaitable[bool]], limit_s: float = 20) -> None:
    ends = time.monotonic() + limit_s
    while not await holds():
        assert time.monotonic() < ends, "waited too long"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def open_workshop(folder: Path, **jobs: Any) -> AsyncIterator[Workshop]:
    """A workshop in a folder; its runners end with it."""
    quick = {"heartbeat_s": 0.05, "poll_s": 0.01}
    places = {"database_url": f"sqlite:///{folder}/jobs.db", "blobs_url": str(folder / "blobs")}
    settings = Settings.parse({"jobs": quick | places | jobs, "requests": {"tiles_at_once": 1}})
    chosen = settings.jobs
    clock = Clock()
    store = await Store.open(chosen.database_url, clock, chosen.most_attempts)
    engine = identity_engine()
    denoiser = Counting(LocalDenoiser(engine, 8))
    workshop = Workshop(
        store, Blobs(chosen.blobs_url), denoiser, settings, Fetcher(settings.fetch), clock
    )
    try:
        yield workshop
    finally:
        denoiser.gate.set()
        for runner, task in workshop.runners:
            await runner.stop()
            await task
        await asyncio.to_thread(engine.close)
        await store.close()
