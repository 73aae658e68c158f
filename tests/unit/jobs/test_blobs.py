from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve_app.errors import BlobCorrupt, BlobMissing, ConfigurationError
from serve_app.jobs.blobs import Blobs

DATA = os.urandom(3 * 2**20 + 7)
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def chunks(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_bytes_are_named_by_what_they_are(blobs: Blobs, tmp_path: Path) -> None:
    whole, piecewise = await blobs.put(DATA), await blobs.put(chunks(DATA))
    assert whole == piecewise
    assert (whole.name, whole.size_bytes) == (NAME, len(DATA))
    assert await blobs.get(NAME) == DATA
    assert b"".join([chunk async for chunk in blobs.stream(NAME)]) == DATA
    assert len(files(tmp_path)) == 1
    assert [(kept.name, kept.size_bytes) async for kept in blobs.files()] == [(NAME, len(DATA))]


async def test_many_writers_of_one_blob(blobs: Blobs, tmp_path: Path) -> None:
    await asyncio.gather(*(blobs.put(DATA) for _ in range(8)))
    assert [path.name for path in files(tmp_path)] == [NAME]


async def test_nothing_is_there_before_it_is_whole(blobs: Blobs, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA[:100]
        raise OSError("the caller is gone")

    with pytest.raises(OSError, match="gone"):
        await blobs.put(broken())
    assert files(tmp_path) == []


@pytest.mark.parametrize("damage", ["flipped", "cut"])
async def test_damage_is_found(blobs: Blobs, tmp_path: Path, damage: str) -> None:
    await blobs.put(DATA)
    [path] = files(tmp_path)
    path.write_bytes(DATA[:-1] if damage == "cut" else bytes([DATA[0] ^ 1]) + DATA[1:])
    with pytest.raises(BlobCorrupt):
        await blobs.get(NAME)
    with pytest.raises(BlobCorrupt):
        async for _ in blobs.stream(NAME):
            pass


async def test_what_is_not_there(blobs: Blobs) -> None:
    assert not await blobs.exists(NAME)
    with pytest.raises(BlobMissing):
        await blobs.get(NAME)
    await blobs.delete(NAME)
    await blobs.put(DATA)
    assert await blobs.exists(NAME)
    await blobs.delete(NAME)
    assert not await blobs.exists(NAME)


@pytest.mark.parametrize(
    "name",
    ["", "..", "../../etc/passwd", NAME.upper(), NAME[:-1]],
    ids=["empty", "up", "path", "capitals", "cut"],
)
async def test_only_names_of_blobs_are_looked_up(blobs: Blobs, name: str) -> None:
    with pytest.raises(BlobMissing):
        await blobs.get(name)


def test_a_place_that_nobody_knows() -> None:
    with pytest.raises(ConfigurationError, match="blobs_url"):
        Blobs("nowhere://x/y")
