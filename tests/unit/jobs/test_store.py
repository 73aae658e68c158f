"""Each side of the store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from serve_app.choices import Priority
from serve_app.errors import (
    ConfigurationError,
    IdempotencyConflict,
    LeaseLost,
    NotFound,
    QuotaExceeded,
)
from serve_app.jobs.database import Database
from serve_app.jobs.records import Lease, NewItem, NewJob, Quotas, ResultRecord, Usage
from serve_app.jobs.schema import metadata
from serve_app.jobs.states import ItemStatus, JobStatus
from serve_app.jobs.store import Store
from tests.unit.jobs.conftest import Clock

SOURCE = "a" * 64
RESULT = ResultRecord("b" * 64, "image/png", 8, 6, 99, {"tiles": 1})
BROKEN = {"type": "tile-failed", "title": "Tile failed", "detail": "it broke"}


def pictures(count: int, pixels: int = 10) -> list[NewItem]:
    return [NewItem(f"{n}.png", {"seed": n}, source=SOURCE, pixels=pixels) for n in range(count)]


async def submitted(store: Store, count: int = 1, tenant: str = "t", **facts: Any) -> str:
    job, new = await store.submit(NewJob(tenant, **facts), pictures(count))
    assert new
    return job.id


async def claimed(store: Store, runner: str = "r", lease_s: float = 30) -> Lease:
    [lease] = await store.claim(runner, lease_s, 1)
    return lease


async def kinds(store: Store, job_id: str) -> list[str]:
    events = await store.events(job_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [event.kind for event in events]


# The database


async def test_the_migrations_make_the_tables(store_url: str) -> None:
    database = Database(store_url)
    await asyncio.gather(database.migrate(), Database(store_url).migrate())
    async with database.read() as connection:
        context = await connection.run_sync(lambda c: MigrationContext.configure(c))
        found = await connection.run_sync(
            lambda c: compare_metadata(MigrationContext.configure(c), metadata)
        )
    assert context is not None
    assert found == []
    await database.close()


@pytest.mark.parametrize("url", ["", "mysql://x/y", "sqlite://", "nonsense"])
def test_a_url_of_no_use(url: str) -> None:
    with pytest.raises(ConfigurationError, match="database_url"):
        Database(url)


# Bringing jobs


async def test_a_job_comes_in_whole(store: Store, clock: Clock) -> None:
    job_id = await submitted(store, 3, params={"scale": 2}, priority=Priority.INTERACTIVE)
    job = await store.job(job_id)
    assert (job.status, job.counts.queued, job.params) == (JobStatus.QUEUED, 3, {"scale": 2})
    assert (job.created_at, job.started_at, job.priority) == (clock.now, None, Priority.INTERACTIVE)
    items = await store.items(job_id)
    assert [(item.number, item.name, item.params) for item in items] == [
        (n, f"{n}.png", {"seed": n}) for n in range(3)
    ]
    assert await kinds(store, job_id) == ["job.created"]
    assert await store.usage("t") == Usage(1, 3, 30)


async def test_one_key_is_one_job(store: Store) -> None:
    job = NewJob("t", idempotency_key="k", digest="d")
    found = await asyncio.gather(*(store.submit(job, pictures(2)) for _ in range(8)))
    assert len({one.id for one, _ in found}) == 1
    assert sum(new for _, new in found) == 1
    with pytest.raises(IdempotencyConflict):
        await store.submit(NewJob("t", idempotency_key="k", digest="other"), pictures(2))
    _, new = await store.submit(NewJob("another", idempotency_key="k", digest="d"), pictures(2))
    assert new


async def test_quotas_say_what_is_left(store: Store) -> None:
    quotas = Quotas(jobs=2, items=5, pixels=100)
    await store.submit(NewJob("t"), pictures(3), quotas)
    with pytest.raises(QuotaExceeded, match="2 of 5 unfinished items are left"):
        await store.submit(NewJob("t"), pictures(3), quotas)
    with pytest.raises(QuotaExceeded, match="70 of 100 unfinished pixels"):
        await store.submit(NewJob("t"), pictures(1, pixels=71), quotas)
    assert await store.usage("t") == Usage(1, 3, 30)  # what was refused left nothing
    await store.submit(NewJob("t"), pictures(2), quotas)
    with pytest.raises(QuotaExceeded, match="0 of 2 unfinished jobs"):
        await store.submit(NewJob("t"), pictures(1), quotas)


async def test_two_at_once_do_not_both_fit(store: Store) -> None:
    tries = (store.submit(NewJob("t"), pictures(3), Quotas(items=5)) for _ in range(4))
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, QuotaExceeded) for one in found) == 3
    assert await store.usage("t") == Usage(1, 3, 30)


# Running items


async def test_an_item_from_first_to_last(store: Store, clock: Clock) -> None:
    job_id = await submitted(store, webhook_url="https://example.org")
    lease = await claimed(store)
    assert (lease.item.status, lease.item.attempts, lease.token) == (ItemStatus.RUNNING, 1, 1)
    assert (await store.job(job_id)).status is JobStatus.RUNNING
    await store.progress(lease, 1, 4, preview="c" * 64)
    assert await store.preview(job_id, 0) == "c" * 64
    await store.checkpoint(lease, "0-x", "d" * 64)
    assert await store.checkpoints(lease) == {"0-x": "d" * 64}
    clock.now += 5
    await store.succeed(lease, RESULT)
    item = await store.item(job_id, 0)
    assert (item.status, item.result, item.finished_at) == (ItemStatus.SUCCEEDED, RESULT, clock.now)
    job = await store.job(job_id)
    assert (job.status, job.finished_at) == (JobStatus.SUCCEEDED, clock.now)
    assert await kinds(store, job_id) == [
        *("job.created", "item.started", "item.progress", "item.preview"),
        *("item.succeeded", "job.finished"),
    ]
    assert await store.preview(job_id, 0) is None
    assert await store.usage("t") == Usage()
    assert [d.kind for d in await store.due_deliveries()] == ["job.finished"]
    assert (await store.counts()).checkpoint_hits == 1


async def test_nothing_to_claim(store: Store) -> None:
    assert await store.claim("r", 30, 5) == []


async def test_tenants_take_turns(store: Store) -> None:
    await submitted(store, 6, tenant="many")
    await submitted(store, 2, tenant="few")
    leases = await store.claim("r", 30, 4)
    assert sorted(lease.tenant for lease in leases) == ["few", "few", "many", "many"]


async def test_interactive_first_then_age_then_order(store: Store, clock: Clock) -> None:
    first = await submitted(store, 2)
    clock.now += 1
    second = await submitted(store, 1)
    clock.now += 1
    hurried = await submitted(store, 1, priority=Priority.INTERACTIVE)
    keys = [lease.key for lease in await store.claim("r", 30, 9)]
    assert keys == [(hurried, 0), (first, 0), (first, 1), (second, 0)]


async def test_a_failure_waits_for_its_next_try(store: Store, clock: Clock) -> None:
    job_id = await submitted(store)
    await store.fail(await claimed(store), BROKEN, retryable=True, delay_s=10)
    assert (await store.item(job_id, 0)).error == BROKEN
    assert await store.claim("r", 30, 1) == []
    clock.now += 10
    assert (await claimed(store)).item.attempts == 2


async def test_what_cannot_be_mended_fails_at_once(store: Store) -> None:
    job_id = await submitted(store, 2)
    await store.fail(await claimed(store), BROKEN, retryable=False)
    await store.succeed(await claimed(store), RESULT)
    job = await store.job(job_id)
    assert (job.status, job.counts.failed, job.counts.succeeded) == (JobStatus.FAILED, 1, 1)


async def test_three_attempts_and_no_more(store: Store) -> None:
    job_id = await submitted(store)
    for _ in range(3):
        await store.fail(await claimed(store), BROKEN, retryable=True)
    assert (await store.item(job_id, 0)).status is ItemStatus.FAILED


async def test_an_item_that_kills_its_runners_is_given_up(store: Store, clock: Clock) -> None:
    job_id = await submitted(store)
    for _ in range(3):
        await claimed(store, "unlucky", lease_s=5)
        clock.now += 6
    assert await store.claim("r", 30, 1) == []
    item = await store.item(job_id, 0)
    assert item.status is ItemStatus.FAILED
    assert item.error is not None
    assert "unlucky" in item.error["detail"]


async def test_an_older_holder_is_refused_everything(store: Store, clock: Clock) -> None:
    job_id = await submitted(store)
    old = await claimed(store, "slow", lease_s=5)
    clock.now += 6
    new = await claimed(store, "other")
    for write in (
        store.succeed(old, RESULT),
        store.fail(old, BROKEN, True),
        store.release(old),
        store.cancelled(old),
        store.progress(old, 1, 2),
        store.checkpoint(old, "0-x", "d" * 64),
        store.checkpoints(old),
    ):
        with pytest.raises(LeaseLost):
            await write
    assert (await store.heartbeat([old, new], 30)).lost == {(job_id, 0)}
    await store.succeed(new, RESULT)
    assert (await kinds(store, job_id)).count("item.succeeded") == 1


async def test_a_heartbeat_keeps_a_lease(store: Store, clock: Clock) -> None:
    await submitted(store)
    lease = await claimed(store, lease_s=5)
    for _ in range(3):
        clock.now += 4
        assert (await store.heartbeat([lease], 5)).lost == set()
    assert await store.claim("other", 30, 1) == []


async def test_what_is_handed_back_counts_no_attempt(store: Store) -> None:
    await submitted(store)
    for _ in range(5):
        lease = await claimed(store)
        assert lease.item.attempts == 1
        await store.release(lease)


async def test_checkpoints_pass_to_the_next_runner(store: Store, clock: Clock) -> None:
    await submitted(store)
    old = await claimed(store, lease_s=5)
    await store.checkpoint(old, "0-x", "d" * 64)
    clock.now += 6
    assert await store.checkpoints(await claimed(store)) == {"0-x": "d" * 64}


# Following and giving up


async def test_cancelled_at_once_or_at_the_next_heartbeat(store: Store) -> None:
    job_id = await submitted(store, 3)
    lease = await claimed(store)
    job = await store.cancel(job_id)
    assert (job.status, job.counts.cancelled, job.counts.running) == (JobStatus.CANCELLING, 2, 1)
    assert (await store.heartbeat([lease], 30)).cancelled == {lease.key}
    await store.cancelled(lease)
    assert (await store.job(job_id)).status is JobStatus.CANCELLED
    assert await store.usage("t") == Usage()
    assert (await kinds(store, job_id))[-1] == "job.finished"


async def test_a_lonely_running_item_is_told_of_its_cancelling(store: Store) -> None:
    job_id = await submitted(store)
    lease = await claimed(store)
    assert (await store.cancel(job_id)).status is JobStatus.CANCELLING
    await store.succeed(lease, RESULT)  # it was faster
    assert (await store.job(job_id)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("how", ["release", "fail", "expire"])
async def test_a_cancelled_item_does_not_wait_again(store: Store, clock: Clock, how: str) -> None:
    job_id = await submitted(store)
    lease = await claimed(store, lease_s=5)
    await store.cancel(job_id)
    if how == "release":
        await store.release(lease)
    elif how == "fail":
        await store.fail(lease, BROKEN, retryable=True)
    else:
        clock.now += 6
        assert await store.claim("r", 30, 1) == []
    assert (await store.job(job_id)).status is JobStatus.CANCELLED


async def test_tried_again_from_the_first_attempt(store: Store) -> None:
    job_id = await submitted(store, 2)
    await store.succeed(await claimed(store), RESULT)
    await store.fail(await claimed(store), BROKEN, retryable=False)
    job = await store.retry(job_id)
    assert (job.status, job.finished_at, job.counts.queued) == (JobStatus.RUNNING, None, 1)
    assert await store.usage("t") == Usage(1, 1, 10)
    lease = await claimed(store)
    assert (lease.item.number, lease.item.attempts) == (1, 1)
    await store.succeed(lease, RESULT)
    assert (await store.job(job_id)).status is JobStatus.SUCCEEDED


async def test_pages_newest_first(store: Store, clock: Clock) -> None:
    made = []
    for _ in range(5):
        clock.now += 1
        made.append(await submitted(store))
    await store.cancel(made[0])
    seen, cursor = [], None
    while True:
        page = await store.jobs("t", cursor=cursor, limit=2)
        seen += [job.id for job in page.jobs]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == made[::-1]
    assert [j.id for j in (await store.jobs("t", JobStatus.CANCELLED)).jobs] == made[:1]
    assert (await store.jobs("stranger")).jobs == []


async def test_another_tenants_job_is_not_there(store: Store) -> None:
    job_id = await submitted(store)
    with pytest.raises(NotFound):
        await store.job(job_id, "stranger")
    with pytest.raises(NotFound):
        await store.cancel(job_id, "stranger")
    with pytest.raises(NotFound):
        await store.item(job_id, 1)


async def test_a_sequence_without_gaps_under_many_writers(store: Store) -> None:
    job_id = await submitted(store, 12)
    leases = await store.claim("r", 30, 12)

    async def work(lease: Lease) -> None:
        await store.progress(lease, 1, 1)
        await store.succeed(lease, RESULT)

    await asyncio.gather(*(work(lease) for lease in leases))
    found = await kinds(store, job_id)
    assert found.count("item.succeeded") == 12
    assert found[-1] == "job.finished"


async def test_many_runners_finish_each_item_once(store_url: str) -> None:
    stores = [await Store.open(store_url) for _ in range(3)]
    job_ids = [await submitted(stores[0], 20, tenant=f"t{n}") for n in range(3)]
    done: list[tuple[str, int]] = []

    async def run(store: Store, name: str) -> None:
        while leases := await store.claim(name, 30, 3):
            for lease in leases:
                await store.succeed(lease, RESULT)
                done.append(lease.key)

    await asyncio.gather(*(run(store, f"r{n}") for n in range(2) for store in stores))
    assert sorted(done) == sorted((job_id, n) for job_id in job_ids for n in range(20))
    for job_id in job_ids:
        assert (await stores[0].job(job_id)).status is JobStatus.SUCCEEDED
    for store in stores:
        await store.close()


# Keeping house


async def test_only_what_nothing_holds_may_go(store: Store, clock: Clock) -> None:
    removed: list[str] = []

    async def remove(name: str) -> None:
        removed.append(name)

    await store.touch_blob(SOURCE, 5)
    await store.touch_blob("e" * 64, 7)
    job_id = await submitted(store)
    assert await store.held_bytes() == 5
    clock.now += 100
    assert await store.unreferenced_blobs(50) == ["e" * 64]
    assert await store.blob_bytes() == 12
    await store.touch_blob("e" * 64, 7)
    assert not await store.forget_blob("e" * 64, 50, remove)  # wanted meanwhile
    assert not await store.delete_job(job_id)  # it has not ended
    await store.cancel(job_id)
    clock.now += 100
    assert await store.ended_jobs(50) == [job_id]
    assert await store.delete_job(job_id)
    assert sorted(await store.unreferenced_blobs(50)) == [SOURCE, "e" * 64]
    assert await store.forget_blob(SOURCE, 50, remove)
    assert removed == [SOURCE]
    assert await store.unreferenced_blobs(50) == ["e" * 64]
    assert await store.adopt_blobs([("e" * 64, 1, 0.0), ("f" * 64, 1, 0.0)]) == 1
    assert sorted(await store.unreferenced_blobs(50)) == ["e" * 64, "f" * 64]


async def test_one_leads(store: Store, clock: Clock) -> None:
    assert await store.lead("sweep", "a", 10)
    assert not await store.lead("sweep", "b", 10)
    assert await store.lead("other", "b", 10)
    clock.now += 11
    assert await store.lead("sweep", "b", 10)
    assert not await store.lead("sweep", "a", 10)


async def test_messages_to_webhooks(store: Store, clock: Clock) -> None:
    job_id = await submitted(store, webhook_url="https://example.org/hook")
    await store.cancel(job_id)
    [message] = await store.due_deliveries()
    assert (message.url, message.attempts) == ("https://example.org/hook", 0)
    assert (message.data["status"], message.data["counts"]["cancelled"]) == ("cancelled", 1)
    await store.undelivered(message.id, "no answer", clock.now + 60)
    assert await store.due_deliveries() == []
    clock.now += 60
    assert [due.attempts for due in await store.due_deliveries()] == [1]
    await store.undelivered(message.id, "gone", None, 410)
    [told] = await store.deliveries(job_id)
    assert (told.status, told.last_status, told.last_error) == ("failed", 410, "gone")
    assert (await store.redeliver(job_id, message.id)).attempts == 0
    await store.delivered(message.id, 204)
    assert (await store.counts()).deliveries == {"pending": 0, "delivered": 1, "failed": 0}
    with pytest.raises(NotFound):
        await store.redeliver(job_id, message.id + 1)


async def test_what_an_operator_counts(store: Store, clock: Clock) -> None:
    await submitted(store, 3)
    clock.now += 7
    await claimed(store)
    counts = await store.counts()
    assert (counts.items["queued"], counts.items["running"], counts.attempts) == (2, 1, 1)
    assert (counts.jobs["running"], counts.oldest_queued_s) == (1, 7)
