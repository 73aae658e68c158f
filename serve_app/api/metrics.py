"""`GET /metrics`: the store's counts for Prometheus. Engines tell Ray of themselves: docs/metrics.md.

It refuses to know what is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from serve_app.api.jobs.desk import Desk
from serve_app.jobs.metrics import StoreCollector

FRESH_S = 5.0
"""Seconds for which a reading is given again: counting goes over every row that is kept."""


def metrics_routes(desk: Desk, clock: Callable[[], float] = time.monotonic) -> APIRouter:
    """The route, and the last reading."""
    router = APIRouter(tags=["operations"])
    reading = asyncio.Lock()
    kept: tuple[float, bytes] = (float("-inf"), b"")

    @router.get("/metrics", summary="Counts of jobs for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """The same whichever replica answers: take one of them, not their sum."""
        nonlocal kept
        async with reading:
            if clock() - kept[0] >= FRESH_S:
                registry = CollectorRegistry()
                registry.register(StoreCollector(await (await desk.store()).counts()))
                kept = clock(), generate_latest(registry)
        return Response(kept[1], media_type=CONTENT_TYPE_LATEST)

    return router
