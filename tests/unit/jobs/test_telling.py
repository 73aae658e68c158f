"""Followers hear the newest, not everything; a lost lease or a store that is away ends no work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from serve_app.contracts import Progress
from serve_app.errors import LeaseLost
from serve_app.jobs import telling
from serve_app.jobs.telling import Telling
from serve_app.tiling.geometry import Size
from tests.workshop import Workshop, open_workshop, until


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workshop]:
    monkeypatch.setattr(telling, "EVERY_S", 0.01)
    async with open_workshop(tmp_path) as workshop:
        await workshop.submit()
        yield workshop


async def made(shop: Workshop) -> Telling:
    [lease] = await shop.store.claim("one", 30, 1)
    return Telling(shop.store, shop.blobs, lease, Size(300, 420))


def at(tiles: int) -> Progress:
    return Progress(
        stage="denoise", tiles_done=tiles, tiles_total=9, steps_done=tiles, steps_total=9
    )


async def test_what_comes_faster_than_it_is_told_is_told_as_the_newest(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    told: list[int] = []

    async def progress(lease: object, done: int, total: int, preview: object) -> None:
        told.append(done)

    monkeypatch.setattr(shop.store, "progress", progress)
    one = await made(shop)
    async with one.during():
        for tiles in range(5):
            one.on_progress(at(tiles))

        async def heard() -> bool:
            return bool(told)

        await until(heard)
    assert told == [4]


@pytest.mark.parametrize("lost", [True, False])
async def test_what_cannot_be_told_ends_no_work(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, lost: bool
):
    failed = asyncio.Event()
    away = OperationalError("SELECT 1", {}, ConnectionError())

    async def progress(*_: object) -> None:
        failed.set()
        raise LeaseLost("somebody else's") if lost else away

    monkeypatch.setattr(shop.store, "progress", progress)
    one = await made(shop)
    async with one.during():
        one.on_progress(at(1))
        await failed.wait()
        one.on_progress(at(2))
    assert failed.is_set()
