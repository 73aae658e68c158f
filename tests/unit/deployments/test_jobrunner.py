"""A runner's replica: its loop starts by itself, is watched, and hands its leases back at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import ray.exceptions

from serve_app.deployments import jobrunner
from serve_app.deployments.jobrunner import JobRunner, RayPixels
from serve_app.errors import ReplicaLost
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.records import Lease, NewItem, NewJob
from serve_app.jobs.states import ItemStatus
from serve_app.jobs.store import Store
from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    places = {
        "database_url": f"sqlite:///{tmp_path}/jobs.db",
        "blobs_url": str(tmp_path / "blobs"),
    }
    return Settings.parse({"jobs": places | {"poll_s": 0.01, "heartbeat_s": 0.05}})


def made(settings: Settings) -> JobRunner:
    handles = [MagicMock() for _ in range(4)]
    return JobRunner(settings, FAKE_MODEL, handles[0], None, handles[2], handles[3])


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.01)


async def test_the_loop_starts_by_itself_and_its_end_hands_leases_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    class Endless:
        def __init__(self, *parts: Any) -> None:
            pass

        async def run(self, lease: Lease) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(jobrunner, "Attempt", Endless)
    replica = made(settings)
    store = await Store.open(settings.jobs.database_url)
    blob = await Blobs(settings.jobs.blobs_url).put(b"a picture")
    job, _ = await store.submit(NewJob("a"), [NewItem("a.png", {}, source=blob.name)])

    async def running() -> bool:
        return (await store.item(job.id, 0)).status is ItemStatus.RUNNING

    await until(running)
    await replica.check_health()
    ending = replica.__del__()
    assert ending is not None
    await ending
    assert replica.__del__() is None
    item = await store.item(job.id, 0)
    assert (item.status, item.attempts) == (ItemStatus.QUEUED, 0)
    await replica.check_health()  # it was told to end
    await replica.stop()  # a second time is nothing
    await store.close()


async def test_a_loop_that_ended_on_its_own_is_ill(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    async def broken(*_: Any, **__: Any) -> Store:
        raise KeyError("a bug")

    monkeypatch.setattr(jobrunner.Store, "open", broken)
    replica = made(settings)
    with pytest.raises(KeyError, match="a bug"):
        await replica._loop
    with pytest.raises(KeyError, match="a bug"):
        await replica.check_health()
    replica._stopped = True


async def test_a_store_that_never_came_keeps_no_replica(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    async def away(*_: Any, **__: Any) -> Store:
        raise ConnectionRefusedError

    monkeypatch.setattr(jobrunner.Store, "open", away)
    replica = made(settings)
    await asyncio.sleep(0)
    await replica.check_health()  # it is waited for
    await replica.stop()
    assert replica._loop.cancelled()


async def test_pixels_of_a_lost_node_are_a_lost_replicas():
    async def gone() -> None:
        raise ray.exceptions.ObjectLostError("00" * 28, None, "")

    with pytest.raises(ReplicaLost):
        await RayPixels().read(gone())


async def test_pixels_are_put_where_every_process_reads_them(monkeypatch: pytest.MonkeyPatch):
    kept: list[Any] = []
    monkeypatch.setattr(jobrunner, "ray", SimpleNamespace(put=kept.append))
    levels = np.zeros((4, 6, 3), np.uint16)[:, ::2]
    await RayPixels().put(levels)
    assert kept[0].flags.c_contiguous
    assert np.array_equal(kept[0], levels)
