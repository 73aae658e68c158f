"""Followers of jobs: none misses an event, and none costs more than a number."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve_app.jobs.records import JobRecord, NewItem, NewJob, ResultRecord
from serve_app.jobs.store import Store
from serve_app.jobs.watching import Hub

RESULT = ResultRecord("r" * 64, "image/png", 1, 2, 3, {})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = await Store.open(f"sqlite:///{tmp_path}/jobs.db")
    yield found
    await found.close()


async def submitted(store: Store, count: int = 3) -> JobRecord:
    items = [NewItem(f"{n}", {}, source="a" * 64) for n in range(count)]
    return (await store.submit(NewJob("t"), items))[0]


async def work(store: Store, reports: int = 0) -> None:
    while leases := await store.claim("r", 60, 5):
        for lease in leases:
            for done in range(reports):
                await store.progress(lease, done, reports)
            await store.succeed(lease, RESULT)


async def followed(hub: Hub, job: JobRecord, after: int = 0, pause_s: float = 0) -> list[int]:
    found = []
    async for told in hub.follow(job, after):
        found += [one.event.sequence for one in told]
        await asyncio.sleep(pause_s)
    return found


async def test_a_thousand_followers_each_without_a_gap(store: Store) -> None:
    job = await submitted(store, 10)
    hub = Hub(store, 0.01, remembered=20)
    slow = [0.05 if number % 100 == 0 else 0 for number in range(1000)]
    following = [
        asyncio.create_task(followed(hub, job, number % 2, pause))
        for number, pause in enumerate(slow)
    ]
    await asyncio.sleep(0)
    await work(store, reports=5)
    found = await asyncio.gather(*following)
    last = (await store.job(job.id)).last_event
    assert last == 1 + 10 * 7 + 1
    for number, sequences in enumerate(found):
        assert sequences == list(range(1 + number % 2, last + 1))
    assert hub.watched == 0


async def test_the_store_is_asked_once_for_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await submitted(store, 2)
    hub, asked = Hub(store, 0.01), []
    events = store.events

    async def counted(job_id: str, after: int = 0, limit: int = 1000) -> object:
        asked.append(after)
        return await events(job_id, after, limit)

    monkeypatch.setattr(store, "events", counted)
    following = [asyncio.create_task(followed(hub, job, 1)) for _ in range(200)]
    await asyncio.sleep(0)
    assert hub.watched == 1
    await work(store)
    await asyncio.gather(*following)
    assert len(asked) < 100


async def test_memory_is_bounded(store: Store) -> None:
    job = await submitted(store, 10)
    hub = Hub(store, 0.01, remembered=7)
    tale = hub.follow(job, 1, keep_alive_s=0.2)
    assert await anext(tale) == []  # nothing happens, and that is told
    (watch,) = hub._watches.values()
    await work(store)
    found: list[int] = []
    async for told in tale:
        assert len(watch.recent) <= 7
        found += [one.event.sequence for one in told]
    assert found == list(range(2, (await store.job(job.id)).last_event + 1))


async def test_an_ended_job_ends_at_once(store: Store) -> None:
    job = await submitted(store)
    await work(store)
    job = await store.job(job.id)
    hub = Hub(store, 10)
    assert await followed(hub, job, job.last_event) == []
    assert await followed(hub, job) == list(range(1, job.last_event + 1))


async def test_a_revived_job_goes_on(store: Store) -> None:
    job = await submitted(store)
    await store.cancel(job.id)
    await store.retry(job.id)
    job = await store.job(job.id)
    following = asyncio.create_task(followed(Hub(store, 0.01), job))
    await work(store)
    assert await following == list(range(1, (await store.job(job.id)).last_event + 1))


async def test_a_forgotten_job_ends(store: Store) -> None:
    job = await submitted(store)
    following = asyncio.create_task(followed(Hub(store, 0.01), job))
    await store.cancel(job.id)
    await store.delete_job(job.id)
    found = await following
    assert found == list(range(1, len(found) + 1))


async def test_the_pace_tells_the_end(store: Store) -> None:
    clock = iter(range(100, 100_000, 10))
    job = await submitted(store, 4)
    hub = Hub(store, 0.01, clock=lambda: (job.created_at + 30) if next(clock) else 0)
    etas: list[float] = []

    async def read() -> None:
        async for told in hub.follow(job, 1):
            etas.extend(one.eta_s for one in told if one.eta_s is not None)

    following = asyncio.create_task(read())
    await work(store, reports=2)
    await following
    assert etas[-1] == 0
    assert all(eta >= 0 for eta in etas)
