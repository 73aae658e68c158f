"""Jobs over Ray: whoever dies, every item has its one result, and the same bytes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.deployments.jobrunner import JobRunner
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.records import ItemRecord, JobRecord, NewItem, NewJob
from serve_app.jobs.states import ItemStatus, JobStatus
from serve_app.jobs.store import Store
from serve_app.testing import photo_like, png_bytes
from serve_app.testing_app import PacedSettings, build_paced_app

pytestmark = pytest.mark.integration

NAME = "jobs"
PARAMS = {"scale": 1, "steps": 4, "seed": 3}
TILES_AT_ONCE = 2
SMALL, LARGE = (png_bytes(photo_like(side, side)) for side in (200, 700))


@dataclass
class Shop:
    """An application whose jobs are in a folder.

    Attributes:
        settings: Of the application.
        turns: Folder in which its denoisers write down what they compute.
    """

    settings: PacedSettings
    turns: Path

    def start(self) -> DeploymentHandle:
        return serve.run(build_paced_app(self.settings), name=NAME, route_prefix=f"/{NAME}")

    async def store(self) -> Store:
        return await Store.open(self.settings.jobs.database_url)

    @property
    def blobs(self) -> Blobs:
        return Blobs(self.settings.jobs.blobs_url)

    def computed(self, job: JobRecord) -> Counter[tuple[str, int]]:
        """How often each tile of a job came to its end at a denoiser."""
        turns = [json.loads(row) for file in self.turns.iterdir() for row in file.open()]
        tiles = [
            tuple(tile) for turn in turns if turn["kind"] == "decode" for tile in turn["tiles"]
        ]
        return Counter(tile for tile in tiles if tile[0].startswith(job.id))


@pytest.fixture
def shop(cluster_port: int, tmp_path: Path) -> Iterator[Shop]:
    turns = tmp_path / "turns"
    turns.mkdir()
    settings = PacedSettings.model_validate(
        {
            "pace": 0.2,
            "turns_to": str(turns),
            "engine": {"max_batch": 1},
            "requests": {"tiles_at_once": TILES_AT_ONCE},
            "deployments": {"denoiser_cpus": 0.1},
            "jobs": {
                "database_url": f"sqlite:///{tmp_path}/jobs.db",
                "blobs_url": str(tmp_path / "blobs"),
                "lease_s": 8,
                "heartbeat_s": 0.3,
                "poll_s": 0.1,
                "items_at_once": 1,
            },
        }
    )
    yield Shop(settings, turns)
    serve.delete(NAME)


async def submitted(shop: Shop, store: Store, *pictures: bytes) -> JobRecord:
    kept = [(await shop.blobs.put(picture)).name for picture in pictures]
    items = [NewItem(f"{at}.png", PARAMS, source=name) for at, name in enumerate(kept)]
    job, _ = await store.submit(NewJob("anonymous"), items)
    return job


async def until(holds: Callable[[], Awaitable[bool]], limit_s: float = 90) -> None:
    ends = time.monotonic() + limit_s
    while not await holds():
        assert time.monotonic() < ends, "waited too long"
        await asyncio.sleep(0.05)


async def ended(store: Store, job: JobRecord) -> list[ItemRecord]:
    async def over() -> bool:
        return (await store.job(job.id)).status.ended

    await until(over)
    return await store.items(job.id)


async def half_way(store: Store, job: JobRecord) -> None:
    """Some tiles are kept, and some are missing."""

    async def begun() -> bool:
        [item] = await store.items(job.id)
        assert item.status is not ItemStatus.SUCCEEDED
        return item.tiles_done >= 3

    await until(begun)


def runner_process() -> psutil.Process:
    """The process of the one runner: it has its deployment in its title."""
    title = f"ServeReplica:{NAME}:JobRunner"
    found = [
        one for one in psutil.Process().children(recursive=True) if title in " ".join(one.cmdline())
    ]
    assert len(found) == 1
    return found[0]


async def result_of(shop: Shop, item: ItemRecord) -> bytes:
    assert item.result is not None, item.error
    return await shop.blobs.get(item.result.blob)


async def directly(handle: DeploymentHandle, picture: bytes) -> bytes:
    image: bytes = (await handle.upscale.remote(picture, PARAMS)).image
    return image


async def test_jobs_are_done_and_give_what_a_direct_call_gives(shop: Shop) -> None:
    store = await shop.store()
    early = await submitted(shop, store, SMALL)  # before anybody is there to run it
    handle = await asyncio.to_thread(shop.start)
    late = await submitted(shop, store, SMALL, LARGE)
    expected = {picture: await directly(handle, picture) for picture in (SMALL, LARGE)}
    [first], [second, third] = await ended(store, early), await ended(store, late)
    for item, picture in ((first, SMALL), (second, SMALL), (third, LARGE)):
        assert await result_of(shop, item) == expected[picture]
        assert (item.attempts, item.result.details["tiles_reused"]) == (1, 0)
    kinds = [event.kind for event in await store.events(late.id)]
    assert {"item.started", "item.progress", "item.preview", "item.succeeded"} <= set(kinds)
    assert kinds[-1] == "job.finished"
    await store.close()


async def test_a_runner_killed_half_way_costs_the_tiles_in_flight(shop: Shop) -> None:
    store = await shop.store()
    handle = await asyncio.to_thread(shop.start)
    job = await submitted(shop, store, LARGE)
    await half_way(store, job)
    os.kill(runner_process().pid, signal.SIGKILL)
    [item] = await ended(store, job)
    assert await result_of(shop, item) == await directly(handle, LARGE)
    assert item.attempts == 2
    tiles, reused = (item.result.details[name] for name in ("tiles", "tiles_reused"))
    assert reused >= 3
    computed = shop.computed(job)
    assert len(computed) == tiles
    assert computed.total() - tiles <= TILES_AT_ONCE
    await store.close()


async def test_an_application_that_ends_hands_its_items_back(shop: Shop) -> None:
    store = await shop.store()
    await asyncio.to_thread(shop.start)
    job = await submitted(shop, store, LARGE)
    await half_way(store, job)
    await asyncio.to_thread(serve.delete, NAME)
    [item] = await store.items(job.id)
    assert (item.status, item.attempts) == (ItemStatus.QUEUED, 0)
    handle = await asyncio.to_thread(shop.start)
    [item] = await ended(store, job)
    assert (await store.job(job.id)).status is JobStatus.SUCCEEDED
    assert (item.attempts, item.result.details["tiles_reused"] >= 3) == (1, True)
    assert await result_of(shop, item) == await directly(handle, LARGE)
    await store.close()


async def test_a_runner_whose_loop_breaks_is_replaced(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is well and would be left alone for ever."""
    mark = tmp_path / "broken"

    class OnceBrokenRunner(JobRunner):
        async def _run(self) -> None:
            if not mark.exists():
                mark.touch()
                await asyncio.sleep(2)  # so that the replica counts as started
                raise RuntimeError("a bug in the loop")
            await JobRunner._run(self)

    monkeypatch.setattr("serve_app.app.JobRunner", OnceBrokenRunner)
    store = await shop.store()
    job = await submitted(shop, store, SMALL)
    await asyncio.to_thread(shop.start)
    [item] = await ended(store, job)
    assert mark.exists()
    assert (item.status, item.attempts) == (ItemStatus.SUCCEEDED, 1)
    await store.close()
