"""Runners may die, be stopped and lose their store: every item has its one result all the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from serve_app.errors import LeaseLost
from serve_app.jobs import patience
from serve_app.jobs.records import Lease
from serve_app.jobs.states import ItemStatus, JobStatus
from tests.workshop import PHOTO, TILES, Workshop, open_workshop, until


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path) as workshop:
        yield workshop


@pytest.fixture(autouse=True)
def quick_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TRY_S", 0.02)


async def result_of(shop: Workshop, item: Any) -> bytes:
    assert item.result is not None, item.error
    return await shop.blobs.get(item.result.blob)


async def test_a_job_is_done_and_gives_what_a_direct_call_gives(shop: Workshop):
    job = await shop.submit(PHOTO, PHOTO)
    shop.start()
    items = await shop.ended(job)
    expected = await shop.directly()
    for item in items:
        assert await result_of(shop, item) == expected.image
        assert item.attempts == 1
    assert len(shop.denoiser.computed) == 2 * TILES
    assert (await shop.store.job(job.id)).status is JobStatus.SUCCEEDED


async def test_who_takes_over_computes_only_what_is_missing(shop: Workshop):
    shop.denoiser.free = 3
    job = await shop.submit()
    shop.start("one")
    await shop.kept(job, 3)
    await shop.kill()
    assert (await shop.item(job)).status is ItemStatus.RUNNING  # nobody said a word
    shop.denoiser.gate.set()
    shop.start("two")
    [item] = await shop.ended(job)
    assert await result_of(shop, item) == (await shop.directly()).image
    assert item.result is not None
    assert (item.attempts, item.result.details["tiles_reused"]) == (2, 3)
    assert Counter(shop.denoiser.computed) == Counter(range(TILES))


async def test_an_item_that_kills_its_runners_is_given_up(shop: Workshop):
    shop.denoiser.free = 0
    job = await shop.submit()
    for attempt in range(3):
        shop.start(f"runner {attempt}")

        async def running(attempt: int = attempt) -> bool:
            item = await shop.item(job)
            return item.attempts == attempt + 1 and item.status is ItemStatus.RUNNING

        await until(running)
        await shop.kill()
    shop.start("last")
    [item] = await shop.ended(job)
    assert item.status is ItemStatus.FAILED
    assert item.error is not None
    assert item.error["type"] == "runner-lost"


async def test_stop_hands_leases_back_at_once(shop: Workshop):
    shop.denoiser.free = 1
    job = await shop.submit(PHOTO, PHOTO)
    runner = shop.start()
    await shop.kept(job, 1)
    await runner.stop()
    items = await shop.store.items(job.id)
    assert [(item.status, item.attempts) for item in items] == [(ItemStatus.QUEUED, 0)] * 2


async def test_what_is_claimed_while_stopping_is_handed_back(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    claim, claiming, go_on = shop.store.claim, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> list[Lease]:
        leases = await claim(*args)
        claiming.set()
        await go_on.wait()
        return leases

    monkeypatch.setattr(shop.store, "claim", slow)
    job = await shop.submit()
    runner = shop.start()
    await claiming.wait()
    stopping = asyncio.create_task(runner.stop())
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    item = await shop.item(job)
    assert (item.status, item.attempts) == (ItemStatus.QUEUED, 0)
    assert shop.denoiser.begun == 0


async def test_a_cancelled_job_stops_within_a_heartbeat(shop: Workshop):
    shop.denoiser.free = 1
    job = await shop.submit(PHOTO, PHOTO, PHOTO)
    shop.start()
    await shop.kept(job, 1)
    assert (await shop.store.cancel(job.id)).status is JobStatus.CANCELLING
    items = await shop.ended(job)
    assert {item.status for item in items} == {ItemStatus.CANCELLED}
    assert (await shop.store.job(job.id)).status is JobStatus.CANCELLED
    assert not shop.runners[0][0]._running


async def test_a_lost_lease_ends_the_work_and_writes_nothing(shop: Workshop):
    shop.denoiser.free = 1
    job = await shop.submit()
    runner = shop.start()
    await shop.kept(job, 1)
    item = await shop.item(job)
    async with shop.store._database.write() as connection:  # as if another had it by now
        change = "UPDATE items SET token = token + 1, runner = 'other', lease_until = 1e12"
        await connection.exec_driver_sql(change)

    async def idle() -> bool:
        return not runner._running

    await until(idle)
    shop.denoiser.gate.set()
    held = await shop.item(job)
    assert (held.status, held.result, held.attempts) == (ItemStatus.RUNNING, None, item.attempts)
    assert shop.denoiser.computed == [0]


async def test_a_lease_lost_over_a_write_is_no_failure(shop: Workshop):
    class Losing:
        async def run(self, lease: Lease) -> None:
            raise LeaseLost("somebody else's")

    job = await shop.submit()
    runner = shop.start(attempt=Losing())

    async def tried_again() -> bool:
        return (await shop.item(job)).attempts >= 2

    async def let_go() -> bool:
        return (await shop.item(job)).attempts == 1 and not runner._running

    await until(let_go)
    shop.clock.ahead_s += 60  # its lease runs out
    await until(tried_again)
    assert not runner._stopping.is_set()


@pytest.fixture
def away(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The first calls of each kind find no store; the calls that failed are counted."""
    failed: Counter[str] = Counter()
    for name in ("claim", "heartbeat", "progress", "checkpoint", "checkpoints", "succeed"):
        original = getattr(shop.store, name)

        async def call(*args: Any, name: str = name, original: Any = original) -> Any:
            if failed[name] < 3:
                failed[name] += 1
                raise OperationalError("SELECT 1", {}, ConnectionError("the server is starting"))
            return await original(*args)

        monkeypatch.setattr(shop.store, name, call)
    return failed


async def test_a_store_that_is_away_for_a_while_loses_nothing(shop: Workshop, away: Counter[str]):
    job = await shop.submit(PHOTO, PHOTO)
    shop.start()
    items = await shop.ended(job)
    assert [(item.status, item.attempts) for item in items] == [(ItemStatus.SUCCEEDED, 1)] * 2
    assert len(shop.denoiser.computed) == 2 * TILES
    assert {name: away[name] for name in ("claim", "checkpoint", "checkpoints", "succeed")} == (
        dict.fromkeys(("claim", "checkpoint", "checkpoints", "succeed"), 3)
    )
    assert away["progress"] > 0


async def test_two_runners_share_a_job(shop: Workshop):
    job = await shop.submit(*[PHOTO] * 8)
    shop.start("one")
    shop.start("two")
    items = await shop.ended(job)
    assert [item.status for item in items] == [ItemStatus.SUCCEEDED] * 8
    assert len(shop.denoiser.computed) == 8 * TILES  # none was run twice
    async with shop.store._database.read() as connection:
        rows = await connection.exec_driver_sql("SELECT DISTINCT runner FROM attempts")
        assert set(rows.scalars()) == {"one", "two"}


async def test_a_runner_works_on_no_more_than_it_may(tmp_path: Path):
    async with open_workshop(tmp_path, items_at_once=2) as shop:
        most = 0

        class Watching:
            running = 0

            async def run(self, lease: Lease) -> None:
                nonlocal most
                self.running += 1
                most = max(most, self.running)
                await asyncio.sleep(0.02)
                self.running -= 1
                await shop.store.fail(lease, {"title": "seen"}, False)

        job = await shop.submit(*[PHOTO] * 6)
        shop.start(attempt=Watching())
        await shop.ended(job)
        assert most == 2


async def test_a_bug_in_an_attempt_costs_its_lease_not_the_runner(shop: Workshop):
    class Broken:
        calls = 0

        async def run(self, lease: Lease) -> None:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("a bug")
            await shop.attempt().run(lease)

    job = await shop.submit()
    broken = Broken()
    shop.start(attempt=broken)

    async def tried() -> bool:
        return broken.calls == 1

    await until(tried)
    shop.clock.ahead_s += 60
    [item] = await shop.ended(job)
    assert (item.status, item.attempts) == (ItemStatus.SUCCEEDED, 2)
