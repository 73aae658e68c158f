"""Finished tiles that are kept, so that a runner that takes over computes only what is missing.

It stands before a denoiser as a denoiser. This module refuses to know how tiles are computed, and in which
process their pixels are.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from serve_app.engine.task import TileTask
from serve_app.errors import BlobCorrupt, BlobMissing
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.records import Lease
from serve_app.jobs.store import Store
from serve_app.levels import Levels
from serve_app.parts import PixelsRef, PromptRef, TileDenoiser

_LEVEL = 1  # of zlib: noise-like tiles shrink by a tenth at any level


class Pixels(Protocol):
    """Opens references to pixels, and makes them."""

    async def read(self, ref: PixelsRef) -> Levels:
        """The pixels behind a reference."""
        ...

    async def put(self, levels: Levels) -> PixelsRef:
        """A reference that denoisers and finishers take."""
        ...


class CheckpointedDenoiser:
    """Satisfies `parts.TileDenoiser`.

    Args:
        inner: Computes what is not kept.
        pixels: Opens and makes references.
        store: Knows which tiles are kept.
        blobs: Keeps them.
        lease: Of the item whose tiles these are.
        on_tile: Told of each tile as it is there.

    Attributes:
        reused: Tiles that needed no computing.
    """

    def __init__(
        self,
        inner: TileDenoiser,
        pixels: Pixels,
        store: Store,
        blobs: Blobs,
        lease: Lease,
        on_tile: Callable[[TileTask, Levels], None],
    ) -> None:
        self._inner = inner
        self._pixels = pixels
        self._store = store
        self._blobs = blobs
        self._lease = lease
        self._on_tile = on_tile
        self._kept: dict[str, str] | None = None
        self._opening = asyncio.Lock()
        self.reused = 0

    async def denoise(
        self,
        task: TileTask,
        crops: Sequence[PixelsRef],
        prompts: Sequence[PromptRef],
        on_steps: Callable[[int], None],
    ) -> PixelsRef:
        """See `parts.TileDenoiser`; raises LeaseLost besides."""
        key = key_of(task)
        async with self._opening:
            if self._kept is None:
                self._kept = await self._store.checkpoints(self._lease)
        if (found := await self._found(key)) is not None:
            self.reused += 1
            self._on_tile(task, found)
            return await self._pixels.put(found)
        ref = await self._inner.denoise(task, crops, prompts, on_steps)
        levels = await self._pixels.read(ref)
        blob = await self._blobs.put(await asyncio.to_thread(pack, levels))
        await self._store.touch_blob(blob.name, blob.size_bytes)
        await self._store.checkpoint(self._lease, key, blob.name)
        self._on_tile(task, levels)
        return ref

    async def ready(self) -> bool:
        """See `parts.TileDenoiser`."""
        return await self._inner.ready()

    async def _found(self, key: str) -> Levels | None:
        blob = (self._kept or {}).get(key)
        if blob is None:
            return None
        try:
            return await asyncio.to_thread(unpack, await self._blobs.get(blob))
        except (BlobMissing, BlobCorrupt):  # it is computed again, and kept again
            return None


def key_of(task: TileTask) -> str:
    """What a tile depends on: its place, and all of its request's parameters."""
    facts = task.params.model_dump(mode="json") | {"request": task.request_id}
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12)
    return f"{task.index}-{digest.hexdigest()}"


def pack(levels: Levels) -> bytes:
    """A tile as bytes, without loss: its shape, then its levels, compressed."""
    shape = np.array(levels.shape, "<u4").tobytes()
    return bytes([levels.ndim]) + shape + zlib.compress(np.ascontiguousarray(levels, "<u2").tobytes(), _LEVEL)


def unpack(data: bytes) -> Levels:
    """The tile that `pack` was given.

    Raises:
        BlobCorrupt: if the bytes are none.
    """
    try:
        end = 1 + 4 * data[0]
        shape = np.frombuffer(data[1:end], "<u4")
        return np.frombuffer(zlib.decompress(data[end:]), "<u2").reshape(shape).astype(np.uint16)
    except (ValueError, IndexError, zlib.error):
        raise BlobCorrupt("not a tile") from None
