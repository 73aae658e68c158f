"""Finished tiles that are kept, so that a runner that takes over computes only what is missing.

It stands before a denoiser as a denoiser. This module refuses to know how tiles are computed, and in which
process their pixels are.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

import numpy as np

from serve_app import __version__
from serve_app.engine.task import TileTask
from serve_app.errors import BlobCorrupt, BlobMissing
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.deposit import deposit
from serve_app.jobs.patience import patiently
from serve_app.jobs.records import Lease
from serve_app.jobs.store import Store
from serve_app.levels import Levels
from serve_app.parts import PixelsRef, PromptRef, TileDenoiser

OnTile = Callable[[TileTask, Levels], None]
"""Told of each tile as it is there, on a thread; of several at once, perhaps."""

_LEVEL = 1  # of zlib: noise-like tiles shrink by a tenth at any level
_DIGEST_BYTES = 16


class Pixels(Protocol):
    """Opens references to pixels, and makes them."""

    async def read(self, ref: PixelsRef) -> Levels:
        """The pixels behind a reference; raises ReplicaLost where they are gone."""
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
        revisions: Of the models, by their names: another revision makes other tiles.
        on_tile: Told of each tile.

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
        revisions: Mapping[str, str | None],
        on_tile: OnTile,
    ) -> None:
        self._inner = inner
        self._pixels = pixels
        self._store = store
        self._blobs = blobs
        self._lease = lease
        self._revisions = revisions
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
        pictures = [await self._pixels.read(crop) for crop in crops]
        revision = self._revisions.get(task.params.model)
        key = await asyncio.to_thread(key_of, task, pictures, revision)
        if (found := await self._found(task, key)) is not None:
            self.reused += 1
            return await self._pixels.put(found)
        ref = await self._inner.denoise(task, crops, prompts, on_steps)
        await self._keep(task, key, await self._pixels.read(ref))
        return ref

    async def ready(self) -> bool:
        """See `parts.TileDenoiser`."""
        return await self._inner.ready()

    async def _found(self, task: TileTask, key: str) -> Levels | None:
        async with self._opening:
            if self._kept is None:
                self._kept = await patiently(lambda: self._store.checkpoints(self._lease))
        blob = self._kept.get(key)
        if blob is None:
            return None

        def look(data: bytes) -> Levels:
            levels = unpack(data)
            self._on_tile(task, levels)
            return levels

        try:
            data = await patiently(lambda: self._blobs.get(blob))
            return await asyncio.to_thread(look, data)
        except BlobMissing:  # it is computed again, and kept again
            return None
        except BlobCorrupt:
            await self._blobs.delete(blob)  # else what is there would be taken for it again
            return None

    async def _keep(self, task: TileTask, key: str, levels: Levels) -> None:
        def look() -> bytes:
            self._on_tile(task, levels)
            return pack(levels)

        data = await asyncio.to_thread(look)
        blob = await patiently(lambda: deposit(self._store, self._blobs, data))
        await patiently(lambda: self._store.checkpoint(self._lease, key, blob.name))


def key_of(task: TileTask, crops: Sequence[Levels], revision: str | None) -> str:
    """What a tile depends on, so that equal keys are equal tiles, whenever and wherever they are made.

    The crops themselves are part of it. So the frames of a moving picture have keys of their own, and so has
    a picture that was fetched a second time from an address where another lies by then.

    Args:
        task: Its place and its request's parameters.
        crops: Of its control pictures.
        revision: Of the model.
    """
    facts = {
        "tile": asdict(task.tile),
        "params": task.params.model_dump(mode="json"),
        "revision": revision,
        "version": __version__,
        "shapes": [crop.shape for crop in crops],
    }
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=_DIGEST_BYTES)
    for crop in crops:
        digest.update(np.ascontiguousarray(crop, "<u2").data)
    return f"{task.index}-{digest.hexdigest()}"


def pack(levels: Levels) -> bytes:
    """A tile as bytes, without loss: its shape, then its levels, compressed."""
    shape = np.array(levels.shape, "<u4").tobytes()
    packed = zlib.compress(np.ascontiguousarray(levels, "<u2").tobytes(), _LEVEL)
    return bytes([levels.ndim]) + shape + packed


def unpack(data: bytes) -> Levels:
    """The tile that `pack` was given.

    Raises:
        BlobCorrupt: if the bytes are none.
    """
    try:
        end = 1 + 4 * data[0]
        shape = np.frombuffer(data[1:end], "<u4")
        levels = np.frombuffer(zlib.decompress(data[end:]), "<u2")
        return levels.reshape(shape).astype(np.uint16)
    except (ValueError, IndexError, zlib.error):
        raise BlobCorrupt("not a tile") from None
