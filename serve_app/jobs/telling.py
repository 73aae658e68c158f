"""What followers of a job hear of an item at work: the newest, now and then.

This module refuses to know how an item is worked on, and who follows.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve_app.contracts import Progress
from serve_app.engine.task import TileTask
from serve_app.errors import LeaseLost
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.deposit import deposit
from serve_app.jobs.patience import is_away
from serve_app.jobs.preview import Preview
from serve_app.jobs.records import Lease
from serve_app.jobs.store import Store
from serve_app.levels import Levels
from serve_app.tiling.geometry import Size, result_size

logger = logging.getLogger("tessera.jobs")

EVERY_S = 0.5
"""Seconds between two tellings: each is a write to the store."""


class Telling:
    """Writes down how far an item is.

    Args:
        store: Tells the job's followers.
        blobs: Keeps previews.
        lease: Of the item.
        source: Its picture's size as it is seen.
    """

    def __init__(self, store: Store, blobs: Blobs, lease: Lease, source: Size) -> None:
        self._store = store
        self._blobs = blobs
        self._lease = lease
        self._source = source
        self._progress: Progress | None = None
        self._preview: Preview | None = None
        self._new_tiles = False
        self._making = threading.Lock()
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    @asynccontextmanager
    async def during(self) -> AsyncIterator[None]:
        """Tells while the block runs. Its end waits for a write that is under way: none is torn off."""
        telling = asyncio.create_task(self._tell_all())
        try:
            yield
        finally:
            self._over.set()
            self._changed.set()
            await telling

    def on_progress(self, progress: Progress) -> None:
        """See `contracts.ProgressCallback`."""
        self._progress = progress
        self._changed.set()

    def on_tile(self, task: TileTask, levels: Levels) -> None:
        """See `checkpoints.OnTile`."""
        with self._making:
            if self._preview is None:
                self._preview = Preview(result_size(self._source, task.params))
        self._preview.add(task.tile, levels)
        self._new_tiles = True

    async def _tell_all(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._over.is_set():
                return
            try:
                await self._tell()
            except LeaseLost:  # the heartbeat finds it out, too, and ends the attempt
                return
            except Exception as error:
                if not is_away(error):
                    raise
                logger.warning("jobs.store_away", extra={"cause": repr(error)})
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._over.wait()
            except TimeoutError:
                continue

    async def _tell(self) -> None:
        progress, preview = self._progress, None
        if progress is None:
            return
        if self._preview is not None and self._new_tiles:
            self._new_tiles = False
            jpeg = await asyncio.to_thread(self._preview.jpeg)
            preview = (await deposit(self._store, self._blobs, jpeg)).name
        await self._store.progress(self._lease, progress.tiles_done, progress.tiles_total, preview)
