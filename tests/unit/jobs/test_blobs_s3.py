"""Blobs in a bucket of a real S3 server on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from serve_app.errors import BlobCorrupt, BlobMissing
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.deposit import deposit
from serve_app.jobs.records import NewItem, NewJob, ResultRecord
from serve_app.jobs.store import Store
from serve_app.jobs.sweep import Sweeper
from serve_app.settings import JobSettings
from tests.unit.jobs.conftest import Clock

DATA = os.urandom(6 * 2**20 + 7)  # more than one part of an upload
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "key": "a",
        "secret": "b",
        "client_kwargs": {"region_name": "eu-west-1"},
        "endpoint_url": f"http://{host}:{port}",
    }
    server.stop()


@pytest.fixture
def url(options: dict[str, Any]) -> str:
    bucket = f"b{uuid.uuid4().hex}"
    s3fs.S3FileSystem(**options).mkdir(bucket)
    return f"s3://{bucket}/tessera"


@pytest.fixture
def blobs(url: str, options: dict[str, Any]) -> Blobs:
    return Blobs(url, options)


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 100_000):
        yield data[at : at + 100_000]


async def names(blobs: Blobs) -> list[tuple[str, int]]:
    return [(kept.name, kept.size_bytes) async for kept in blobs.files()]


async def test_bytes_are_kept_and_read(blobs: Blobs) -> None:
    whole, piecewise = await blobs.put(DATA), await blobs.put(chunks(DATA))
    assert whole == piecewise
    assert await blobs.get(NAME) == DATA
    assert b"".join([chunk async for chunk in blobs.stream(NAME)]) == DATA
    assert await names(blobs) == [(NAME, len(DATA))]
    await asyncio.gather(*(blobs.put(DATA) for _ in range(4)))
    assert await names(blobs) == [(NAME, len(DATA))]
    assert await blobs.tidy(2e12) == 0


async def test_what_is_not_there(blobs: Blobs) -> None:
    assert not await blobs.exists(NAME)
    assert await names(blobs) == []
    with pytest.raises(BlobMissing):
        await blobs.get(NAME)
    await blobs.delete(NAME)


async def test_what_another_process_swept_is_written_again(
    blobs: Blobs, url: str, options: dict[str, Any]
) -> None:
    """A client that remembers listings would believe it there still."""
    other = Blobs(url, options | {"skip_instance_cache": True})
    await blobs.put(DATA)
    assert await names(blobs) == [(NAME, len(DATA))]
    await other.delete(NAME)
    assert not await blobs.exists(NAME)
    await blobs.put(DATA)
    assert await other.get(NAME) == DATA


async def test_damage_is_found(blobs: Blobs, url: str, options: dict[str, Any]) -> None:
    files = s3fs.S3FileSystem(**options)
    path = f"{url.removeprefix('s3://')}/blobs/{NAME[:2]}/{NAME[2:4]}/{NAME}"
    files.pipe_file(path, b"something else")
    with pytest.raises(BlobCorrupt):
        await blobs.get(NAME)


async def test_a_job_and_its_sweeping(blobs: Blobs, tmp_path: Path) -> None:
    clock = Clock()
    clock.now = 4e9  # later than any file's time
    store = await Store.open(f"sqlite:///{tmp_path}/jobs.db", clock)
    source = await deposit(store, blobs, b"source")
    job, _ = await store.submit(NewJob("t"), [NewItem("a.png", {}, source.name)])
    [lease] = await store.claim("r", 30, 1)
    result = await deposit(store, blobs, b"result")
    await blobs.put(b"nobody's")
    await store.succeed(lease, ResultRecord(result.name, "image/png", 1, 1, 6))
    settings = JobSettings.model_validate({"orphan_grace_s": 1, "retention_s": 100})
    sweeper = Sweeper(store, blobs, settings, "me", clock)
    clock.now += 10
    await sweeper.once()
    await sweeper.once()
    assert {name for name, _ in await names(blobs)} == {source.name, result.name}
    clock.now += 200
    await sweeper.once()
    clock.now += 10
    await sweeper.once()
    assert await names(blobs) == []
    assert (await store.counts()).jobs["succeeded"] == 0
    assert job.id
    await store.close()
