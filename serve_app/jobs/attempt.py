"""One attempt at one item: its source becomes a request, its result a blob, its failure a reason.

This module refuses to know how items are claimed, and when an attempt is stopped.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from serve_app.contracts import UpscaleParams, Upscaler, UpscaleRequest, UpscaleResult
from serve_app.errors import Busy, LeaseLost, RequestError, TesseraError
from serve_app.fetch.client import Fetcher
from serve_app.imaging.inspect import inspect
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.checkpoints import CheckpointedDenoiser, Pixels
from serve_app.jobs.deposit import deposit
from serve_app.jobs.patience import patiently
from serve_app.jobs.records import Json, Lease, ResultRecord
from serve_app.jobs.store import Store
from serve_app.jobs.telling import Telling
from serve_app.model_info import ModelInfo
from serve_app.parts import TileDenoiser
from serve_app.settings import Settings
from serve_app.tiling.geometry import Size

logger = logging.getLogger("tessera.jobs")

Wrap = Callable[[TileDenoiser], TileDenoiser]
Conduct = Callable[[Wrap], Upscaler]
"""Makes an upscaler whose denoiser is wrapped."""

_BUSY_S = 2.0
_RETRY_S = 2.0  # before the second try; twice as long before each further


class Attempt:
    """Works on leased items.

    Args:
        store: Told what becomes of them.
        blobs: Where sources are, and results go.
        fetcher: Gets sources that are given by their address.
        conduct: Makes an upscaler whose denoiser is wrapped.
        models: That it offers.
        pixels: Opens tiles.
        settings: Of the application.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        fetcher: Fetcher,
        conduct: Conduct,
        models: list[ModelInfo],
        pixels: Pixels,
        settings: Settings,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._fetcher = fetcher
        self._conduct = conduct
        self._revisions = {model.name: model.revision for model in models}
        self._pixels = pixels
        self._settings = settings

    async def run(self, lease: Lease) -> None:
        """Works on an item to its end, good or bad; being cancelled leaves the item leased.

        Raises:
            LeaseLost: somebody else has the item now.
        """
        try:
            await self._succeed(lease)
        except LeaseLost:
            raise
        except Busy as error:
            delay_s = error.retry_after_s or _BUSY_S
            await patiently(lambda: self._store.release(lease, delay_s))
        except RequestError as error:
            await self._fail(lease, error, retryable=False)
        except TesseraError as error:
            await self._fail(lease, error, retryable=True)
        except Exception as error:
            facts = {"job": lease.item.job_id, "item": lease.item.number}
            logger.exception("jobs.item_broke", extra=facts)
            broken = TesseraError(f"something broke that should not: {type(error).__name__}")
            await self._fail(lease, broken, retryable=True)

    async def _succeed(self, lease: Lease) -> None:
        request = await self._request(lease)
        header = await asyncio.to_thread(inspect, request.image, self._settings.images)
        size = Size(header.height, header.width)
        telling = Telling(self._store, self._blobs, lease, size)
        denoisers: list[CheckpointedDenoiser] = []

        def wrap(inner: TileDenoiser) -> TileDenoiser:
            kept = (self._pixels, self._store, self._blobs, lease, self._revisions)
            denoisers.append(CheckpointedDenoiser(inner, *kept, telling.on_tile))
            return denoisers[-1]

        async with telling.during():
            result = await self._conduct(wrap).upscale(request, telling.on_progress)
        reused = sum(denoiser.reused for denoiser in denoisers)
        await self._hand_in(lease, result, reused)

    async def _hand_in(self, lease: Lease, result: UpscaleResult, reused: int) -> None:
        blob = await patiently(lambda: deposit(self._store, self._blobs, result.image))
        record = ResultRecord(
            blob.name,
            result.media_type,
            result.width,
            result.height,
            blob.size_bytes,
            _details(result) | {"tiles_reused": reused},
        )
        await patiently(lambda: self._store.succeed(lease, record))

    async def _request(self, lease: Lease) -> UpscaleRequest:
        item = lease.item
        request_id = f"{item.job_id}-{item.number}"
        if item.source is not None:
            image = await self._blob(item.source)
        else:
            limit_bytes = self._settings.images.upload_bytes
            image = await self._fetcher.fetch(item.source_url or "", limit_bytes, request_id)
        controls = {name: await self._blob(blob) for name, blob in item.control_images.items()}
        return UpscaleRequest(
            image=image,
            control_images=controls,
            params=UpscaleParams.parse(item.params),
            priority=lease.priority,
            tenant=lease.tenant,
            request_id=request_id,
            timeout_s=self._settings.jobs.item_timeout_s,
        )

    async def _blob(self, name: str) -> bytes:
        return await patiently(lambda: self._blobs.get(name))

    async def _fail(self, lease: Lease, error: TesseraError, *, retryable: bool) -> None:
        spread = random.uniform(0.75, 1.25)  # what failed together is not tried together
        delay_s = _RETRY_S * 2 ** (lease.item.attempts - 1) * spread
        await patiently(lambda: self._store.fail(lease, problem(error), retryable, delay_s))


def problem(error: TesseraError) -> Json:
    """An error as the members of a problem document."""
    members = {
        "type": f"urn:tessera:problem:{error.code}",
        "title": error.title,
        "detail": error.detail,
    }
    optional = {"field": error.field, "allowed": error.allowed}
    return members | {name: value for name, value in optional.items() if value is not None}


def _details(result: UpscaleResult) -> dict[str, Any]:
    return {
        "params": result.params.model_dump(mode="json"),
        "timings_s": result.timings_s,
        "tiles": result.tiles,
        "tiles_retried": result.tiles_retried,
        "frames": result.frames,
        "source_width": result.source_width,
        "source_height": result.source_height,
        "report": result.report.model_dump(mode="json") if result.report else None,
    }
