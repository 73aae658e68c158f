"""A real server on loopback, for what an in-process transport cannot show: connections that break."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI


def _server(app: FastAPI) -> tuple[uvicorn.Server, socket.socket, int]:
    listening = socket.create_server(("127.0.0.1", 0))
    # A request that never ends must fail its test, not keep the server from stopping.
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    return uvicorn.Server(config), listening, listening.getsockname()[1]


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[int]:
    """Serves `app` on this event loop; gives the port."""
    server, listening, port = _server(app)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        await running
        listening.close()


@contextmanager
def serving_in_thread(app: FastAPI) -> Iterator[str]:
    """Serves `app` on a thread, for callers that run an event loop of their own; gives the URL."""
    server, listening, port = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
