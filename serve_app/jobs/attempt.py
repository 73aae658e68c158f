"""One attempt at one item: its source becomes a request, its result a blob, its failure a reason.

This module refuses to know how items are claimed, and when an attempt is stopped.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError

from serve_app.contracts import Progress, Upscaler, UpscaleParams, UpscaleRequest, UpscaleResult
from serve_app.engine.task import TileTask
from serve_app.errors import Busy, LeaseLost, RequestError, TesseraError
from serve_app.fetch.client import Fetcher
from serve_app.imaging.inspect import inspect
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.checkpoints import CheckpointedDenoiser, Pixels
from serve_app.jobs.preview import Preview
from serve_app.jobs.records import Json, Lease, ResultRecord
from serve_app.jobs.store import Store
from serve_app.levels import Levels
from serve_app.parts import TileDenoiser
from serve_app.settings import Settings
from serve_app.tiling.geometry import Size, result_size

logger = logging.getLogger("tessera.jobs")

Wrap = Callable[[TileDenoiser], TileDenoiser]
Conduct = Callable[[Wrap], Upscaler]
"""Makes an upscaler whose denoiser is wrapped."""

T = TypeVar("T")

_TOLD_EVERY_S = 0.5  # progress is written down no oftener
_BUSY_S = 2.0
_RETRY_S = 2.0  # before the second try; twice as long before each further
_STORE_AWAY = (DBAPIError, InterfaceError, OSError)
_STORE_TRY_S = 0.5


class Attempt:
    """Works on leased items.

    Args:
        store: Told what becomes of them.
        blobs: Where sources are, and results go.
        fetcher: Gets sources that are given by their address.
        conduct: Makes an upscaler whose denoiser is wrapped.
        pixels: Opens tiles.
        settings: Of the application.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        fetcher: Fetcher,
        conduct: Conduct,
        pixels: Pixels,
        settings: Settings,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._fetcher = fetcher
        self._conduct = conduct
        self._pixels = pixels
        self._settings = settings

    async def run(self, lease: Lease) -> None:
        """Works on an item to its end, good or bad. Raises LeaseLost; being cancelled leaves the item leased."""
        try:
            await self._succeed(lease)
        except LeaseLost:
            raise
        except Busy as error:
            await self._said(lambda: self._store.release(lease, error.retry_after_s or _BUSY_S))
        except RequestError as error:
            await self._failed(lease, problem(error), retryable=False)
        except TesseraError as error:
            await self._failed(lease, problem(error), retryable=True)
        except Exception as error:
            logger.exception("jobs.item_broke", extra={"job": lease.item.job_id, "item": lease.item.number})
            broken = TesseraError(f"something broke that should not: {type(error).__name__}")
            await self._failed(lease, problem(broken), retryable=True)

    async def _succeed(self, lease: Lease) -> None:
        request = await self._request(lease)
        header = inspect(request.image, self._settings.images)
        source = Size(header.height, header.width)
        following = _Following(self._store, self._blobs, lease, source)
        denoisers: list[CheckpointedDenoiser] = []

        def wrap(inner: TileDenoiser) -> TileDenoiser:
            made = CheckpointedDenoiser(
                inner, self._pixels, self._store, self._blobs, lease, following.on_tile
            )
            denoisers.append(made)
            return made

        telling = asyncio.create_task(following.tell())
        try:
            result = await self._conduct(wrap).upscale(request, following.on_progress)
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
        blob = await self._blobs.put(result.image)
        reused = sum(denoiser.reused for denoiser in denoisers)
        record = ResultRecord(
            blob.name,
            result.media_type,
            result.width,
            result.height,
            blob.size_bytes,
            _details(result) | {"tiles_reused": reused},
        )

        async def hand_in() -> None:
            await self._store.touch_blob(blob.name, blob.size_bytes)
            await self._store.succeed(lease, record)

        await self._said(hand_in)

    async def _request(self, lease: Lease) -> UpscaleRequest:
        item = lease.item
        request_id = f"{item.job_id}-{item.number}"
        if item.source is not None:
            image = await self._blobs.get(item.source)
        else:
            limit = self._settings.images.upload_bytes
            image = await self._fetcher.fetch(item.source_url or "", limit, request_id)
        controls = {name: await self._blobs.get(blob) for name, blob in item.control_images.items()}
        return UpscaleRequest(
            image=image,
            control_images=controls,
            params=UpscaleParams.parse(item.params),
            priority=lease.priority,
            tenant=lease.tenant,
            request_id=request_id,
            timeout_s=self._settings.jobs.item_timeout_s,
        )

    async def _failed(self, lease: Lease, error: Json, *, retryable: bool) -> None:
        delay_s = _RETRY_S * 2 ** (lease.item.attempts - 1) * random.uniform(0.75, 1.25)
        await self._said(lambda: self._store.fail(lease, error, retryable, delay_s))

    async def _said(self, say: Callable[[], Awaitable[T]]) -> T:
        """Tells the store what became of an item, and waits for a store that is away: work must not be lost."""
        while True:
            try:
                return await say()
            except _STORE_AWAY as error:
                logger.warning("jobs.store_away", extra={"cause": repr(error)})
                await asyncio.sleep(_STORE_TRY_S)


class _Following:
    """What followers of a job hear of an item at work: the newest, now and then."""

    def __init__(self, store: Store, blobs: Blobs, lease: Lease, source: Size) -> None:
        self._store = store
        self._blobs = blobs
        self._lease = lease
        self._source = source
        self._progress: Progress | None = None
        self._preview: Preview | None = None
        self._new_tiles = False
        self._changed = asyncio.Event()

    def on_progress(self, progress: Progress) -> None:
        """See `contracts.ProgressCallback`."""
        self._progress = progress
        self._changed.set()

    def on_tile(self, task: TileTask, levels: Levels) -> None:
        """A tile is there."""
        if self._preview is None:
            self._preview = Preview(result_size(self._source, task.params))
        self._preview.add(task.tile, levels)
        self._new_tiles = True

    async def tell(self) -> None:
        """Writes down what is new, until it is cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._tell()
            except LeaseLost:  # the heartbeat finds it out, too, and ends the attempt
                return
            except _STORE_AWAY as error:
                logger.warning("jobs.store_away", extra={"cause": repr(error)})
            await asyncio.sleep(_TOLD_EVERY_S)

    async def _tell(self) -> None:
        progress, preview = self._progress, None
        if progress is None:
            return
        if self._preview is not None and self._new_tiles:
            self._new_tiles = False
            blob = await self._blobs.put(await asyncio.to_thread(self._preview.jpeg))
            await self._store.touch_blob(blob.name, blob.size_bytes)
            preview = blob.name
        await self._store.progress(self._lease, progress.tiles_done, progress.tiles_total, preview)


def problem(error: TesseraError) -> Json:
    """An error as the members of a problem document."""
    members = {"type": error.code, "title": error.title, "detail": error.detail}
    optional = {"field": error.field, "allowed": error.allowed}
    return members | {name: value for name, value in optional.items() if value is not None}


def _details(result: UpscaleResult) -> dict[str, Any]:
    return {
        "params": result.params.model_dump(mode="json"),
        "timings_s": result.timings_s,
        "tiles": result.tiles,
        "tiles_retried": result.tiles_retried,
        "source_width": result.source_width,
        "source_height": result.source_height,
        "report": result.report.model_dump(mode="json") if result.report else None,
    }
