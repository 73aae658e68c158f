from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from serve_app.jobs.blobs import Blobs
from serve_app.jobs.deposit import deposit
from serve_app.jobs.records import NewItem, NewJob, ResultRecord
from serve_app.jobs.store import Store
from serve_app.jobs.sweep import Sweeper, Swept
from serve_app.settings import JobSettings
from tests.unit.jobs.conftest import Clock

GRACE_S, KEPT_S = 100.0, 1000.0


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "kept"))


def sweeper(store: Store, blobs: Blobs, clock: Clock, **changes: Any) -> Sweeper:
    times = {"retention_s": KEPT_S, "orphan_grace_s": GRACE_S, "sweep_s": 300}
    return Sweeper(store, blobs, JobSettings.model_validate(times | changes), "me", clock)


async def done(store: Store, blobs: Blobs, text: bytes) -> str:
    """A job of one picture that has its result."""
    source = await deposit(store, blobs, b"source of " + text)
    job, _ = await store.submit(NewJob("t"), [NewItem("a.png", {}, source.name)])
    [lease] = await store.claim("r", 30, 1)
    result = await deposit(store, blobs, b"result of " + text)
    await store.succeed(lease, ResultRecord(result.name, "image/png", 1, 1, result.size_bytes))
    return job.id


async def names(blobs: Blobs) -> set[str]:
    return {kept.name async for kept in blobs.files()}


async def test_a_job_past_its_time_goes_with_its_files(
    store: Store, blobs: Blobs, clock: Clock
) -> None:
    sweep = sweeper(store, blobs, clock)
    await done(store, blobs, b"old")
    clock.now += KEPT_S - 1
    young = await done(store, blobs, b"young")
    kept = len(await names(blobs))
    assert await sweep.once() == Swept(0, 0, 0, 0)
    assert kept == len(await names(blobs)) == 4
    clock.now += 2
    assert await sweep.once() == Swept(1, 2, 0, 0)
    assert len(await names(blobs)) == 2
    assert [job.id for job in (await store.jobs("t")).jobs] == [young]


async def test_what_two_jobs_share_stays_for_the_other(
    store: Store, blobs: Blobs, clock: Clock
) -> None:
    await done(store, blobs, b"same")
    clock.now += KEPT_S + 1
    await done(store, blobs, b"same")
    clock.now += GRACE_S + 1
    assert await sweeper(store, blobs, clock).once() == Swept(1, 0, 0, 0)
    assert len(await names(blobs)) == 2


async def test_beyond_the_size_the_jobs_that_ended_first_go(
    store: Store, blobs: Blobs, clock: Clock
) -> None:
    for text in (b"one", b"two", b"six"):
        newest = await done(store, blobs, text)
        clock.now += 1
    clock.now += GRACE_S
    sweep = sweeper(store, blobs, clock, retention_bytes=40)
    assert await sweep.once() == Swept(2, 4, 0, 0)
    assert [job.id for job in (await store.jobs("t")).jobs] == [newest]


async def test_unfinished_jobs_stay_whatever_they_hold(
    store: Store, blobs: Blobs, clock: Clock
) -> None:
    source = await deposit(store, blobs, b"waits")
    await store.submit(NewJob("t"), [NewItem("a.png", {}, source.name)])
    clock.now += 10 * KEPT_S
    assert await sweeper(store, blobs, clock, retention_bytes=1).once() == Swept(0, 0, 0, 0)
    assert await names(blobs) == {source.name}


async def test_what_nobody_referred_to_goes_after_the_grace(
    store: Store, blobs: Blobs, clock: Clock
) -> None:
    await deposit(store, blobs, b"its caller broke off")
    clock.now += GRACE_S - 1
    assert await sweeper(store, blobs, clock).once() == Swept(0, 0, 0, 0)
    clock.now += 2
    assert await sweeper(store, blobs, clock).once() == Swept(0, 1, 0, 0)
    assert await names(blobs) == set()


async def test_files_that_no_row_knows(
    store: Store, blobs: Blobs, clock: Clock, tmp_path: Path
) -> None:
    lost, fresh = await blobs.put(b"lost"), await blobs.put(b"fresh")
    paths = {path.name: path for path in tmp_path.rglob("*") if path.is_file()}
    partial = paths[lost.name].with_name(f".{lost.name}.cut")
    partial.write_bytes(b"lo")
    for path in (paths[lost.name], partial):
        os.utime(path, (clock.now - GRACE_S - 1,) * 2)
    os.utime(paths[fresh.name], (clock.now,) * 2)
    assert await sweeper(store, blobs, clock).once() == Swept(0, 1, 1, 1)
    assert await names(blobs) == {fresh.name}
    assert not partial.exists()


async def test_one_sweeps(store: Store, blobs: Blobs, clock: Clock) -> None:
    assert await store.lead("sweep", "another", 1000)
    assert await sweeper(store, blobs, clock).once() is None
    clock.now += 1001
    assert await sweeper(store, blobs, clock).once() is not None


async def test_a_blob_wanted_again_while_it_is_swept_is_written_anew(
    store: Store, blobs: Blobs, clock: Clock
) -> None:
    blob = await deposit(store, blobs, b"again")
    clock.now += GRACE_S + 1
    removing, go_on = asyncio.Event(), asyncio.Event()

    async def remove(name: str) -> None:
        removing.set()
        await go_on.wait()
        await blobs.delete(name)

    sweep = asyncio.create_task(store.forget_blob(blob.name, GRACE_S, remove))
    await removing.wait()
    again = asyncio.create_task(deposit(store, blobs, b"again"))
    await asyncio.sleep(0.1)
    assert not again.done()
    go_on.set()
    assert await sweep
    await again
    assert await blobs.get(blob.name) == b"again"
    assert not await store.forget_blob(blob.name, GRACE_S, blobs.delete)
