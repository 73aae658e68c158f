"""Tiles that are kept: found again where they are the same, and nowhere else."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serve_app.contracts import Priority, UpscaleParams, resolve
from serve_app.engine.task import TileTask
from serve_app.errors import BlobCorrupt
from serve_app.jobs import checkpoints
from serve_app.jobs.checkpoints import key_of, pack, unpack
from serve_app.levels import Levels
from serve_app.testing import FAKE_MODEL, photo_like
from serve_app.tiling.geometry import Tile
from tests.workshop import TILES, Workshop, open_workshop

TASK = TileTask("r", 1, Tile(0, 32, 256, 256), resolve(UpscaleParams(scale=2), FAKE_MODEL, 7))
CROP: Levels = np.arange(2 * 3 * 3, dtype=np.uint16).reshape(2, 3, 3)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path) as workshop:
        yield workshop


def test_a_key_is_the_same_whoever_asks_and_when():
    other = replace(TASK, request_id="s", priority=Priority.BATCH, tenant="b", time_left_s=3)
    assert key_of(TASK, [CROP], "a") == key_of(other, [CROP.copy()], "a")
    assert key_of(TASK, [CROP], "a").startswith("1-")


def test_a_key_tells_apart_what_makes_another_tile():
    seeded = TASK.params.model_copy(update={"seed": 8})
    keys = {
        key_of(TASK, [CROP], "a"),
        key_of(TASK, [CROP], "b"),
        key_of(TASK, [CROP], None),
        key_of(TASK, [CROP + 1], "a"),
        key_of(TASK, [CROP.reshape(3, 2, 3)], "a"),
        key_of(TASK, [CROP, CROP], "a"),
        key_of(replace(TASK, tile=Tile(32, 32, 256, 256)), [CROP], "a"),
        key_of(replace(TASK, params=seeded), [CROP], "a"),
    }
    assert len(keys) == 8
    assert max(map(len, keys)) <= 120  # the column's width


@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 1, 3), (256, 256, 3)])
def test_a_tile_comes_back_as_it_was(shape: tuple[int, ...]):
    levels = np.random.default_rng(1).integers(0, 65536, shape, np.uint16)
    back = unpack(pack(levels))
    assert back.dtype == np.uint16
    assert np.array_equal(back, levels)
    assert back.flags.writeable


@pytest.mark.parametrize("data", [b"", b"\x03", b"no tile", pack(CROP)[:-4], b"\x01" + pack(CROP)])
def test_what_is_no_tile_is_refused(data: bytes):
    with pytest.raises(BlobCorrupt):
        unpack(data)


async def resumed(shop: Workshop, spoil: Any) -> tuple[Any, bytes]:
    """An item whose runner died when two tiles were kept, and what was done to them before it went on."""
    shop.denoiser.free = 2
    job = await shop.submit()
    shop.start("one")
    await shop.kept(job, 2)
    await shop.kill()
    await spoil()
    shop.denoiser.gate.set()
    shop.start("two")
    [item] = await shop.ended(job)
    assert item.result is not None
    return item, await shop.blobs.get(item.result.blob)


def tile_files(shop: Workshop) -> list[Path]:
    folder = Path(shop.settings.jobs.blobs_url)
    return [file for file in folder.rglob("*") if file.is_file() and file.read_bytes()[0] == 3]


@pytest.mark.parametrize("how", ["missing", "corrupt"])
async def test_a_tile_that_was_lost_is_computed_again(shop: Workshop, how: str):
    async def spoil() -> None:
        files = tile_files(shop)
        assert len(files) == 2
        if how == "missing":
            files[0].unlink()
        else:
            files[0].write_bytes(files[0].read_bytes()[:-1])

    item, image = await resumed(shop, spoil)
    assert item.result.details["tiles_reused"] == 1
    assert len(shop.denoiser.computed) == TILES + 1
    assert image == (await shop.directly()).image


async def test_another_revision_of_the_model_reuses_nothing(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    async def spoil() -> None:
        newer = FAKE_MODEL.model_copy(update={"revision": "newer"})
        monkeypatch.setattr("tests.workshop.FAKE_MODEL", newer)

    item, _ = await resumed(shop, spoil)
    assert item.result.details["tiles_reused"] == 0
    assert len(shop.denoiser.computed) == TILES + 2


async def test_each_frame_of_a_moving_picture_has_its_own_tiles(shop: Workshop):
    """They are run as still pictures under one request, each with the same places and parameters."""
    frames = [Image.fromarray(photo_like(300, 420, seed)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], duration=100)
    picture = file.getvalue()
    shop.denoiser.free = TILES + 2
    job = await shop.submit(picture, animated=True)
    shop.start("one")
    await shop.kept(job, TILES + 2)
    assert await shop.tiles_held(job) == TILES + 2  # none took another frame's place
    await shop.kill()
    shop.denoiser.gate.set()
    shop.start("two")
    [item] = await shop.ended(job)
    assert item.result is not None, item.error
    assert item.result.details["tiles_reused"] == TILES + 2
    assert len(shop.denoiser.computed) == 3 * TILES
    expected = await shop.directly(picture, animated=True)
    assert await shop.blobs.get(item.result.blob) == expected.image


async def test_tiles_at_once_ask_for_what_is_kept_once(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    asked, original = 0, shop.store.checkpoints

    async def counted(lease: Any) -> dict[str, str]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return await original(lease)

    monkeypatch.setattr(shop.store, "checkpoints", counted)
    many = shop.settings.requests.model_copy(update={"tiles_at_once": TILES})
    shop.settings = shop.settings.model_copy(update={"requests": many})
    job = await shop.submit()
    shop.start()
    await shop.ended(job)
    assert asked == 1
    assert checkpoints.CheckpointedDenoiser.__doc__
