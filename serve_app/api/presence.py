"""Runs work for as long as its caller is there.

Ray Serve cancels a request's task when its client goes away; a plain ASGI server only says so through
`receive()`. Listening there beside the work covers both. It refuses to know what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work` and cancels it at once when the client goes away.

    Args:
        receive: The request's ASGI channel, its body already read to the end.
        work: What to run; when this returns or raises, it has ended.

    Returns:
        What `work` returned.

    Raises:
        ClientDisconnect: if the client went away first.
    """
    running = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        watching.result()
        raise ClientDisconnect
    finally:
        running.cancel()
        watching.cancel()
        await asyncio.gather(running, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
