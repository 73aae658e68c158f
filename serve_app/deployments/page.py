"""The web page as a Serve application of its own: one replica, for Gradio keeps its sessions in a process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI
from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.client import HttpUpscaler
from serve_app.errors import TesseraError
from serve_app.settings import PageSettings, Settings
from serve_app.ui.backend import Backend, Offer

_ROOT_LINK = (
    b'<link rel="manifest" href="/manifest.json" />',
    b'<link rel="manifest" href="./manifest.json" /><link rel="icon" href="./favicon.ico" />',
)
_API_STARTS_S = 300  # after that Serve starts the replica anew
_LOOK_AGAIN_S = 0.5
EXAMPLES = Path(__file__).parents[2] / "examples"


@serve.ingress()
class Page:
    """Serves the page.

    Args:
        settings: Where the API is.
    """

    # Serve awaits it.
    async def __init__(self, settings: PageSettings) -> None:  # type: ignore[misc]
        # Here alone: Gradio need not be installed where there is no page.
        from serve_app.ui.http import HttpBackend
        from serve_app.ui.memory import MemoryBackend

        self._settings = settings
        self._backend: Backend = HttpBackend(settings.server)
        if not settings.jobs:
            upscaler = HttpUpscaler(settings.server)
            self._backend = MemoryBackend(upscaler, Settings(), self._backend.plan)
        self._offer = await self._wait_for_offer()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        from serve_app.ui.files import Shelf
        from serve_app.ui.page import build_page, mount

        kept_s = self._settings.files_kept_s
        shelf, examples = Shelf(kept_s), sorted(EXAMPLES.glob("*.jpg"))
        page = build_page(self._backend, self._offer, shelf, examples, kept_s)
        return BesideAnother(mount(FastAPI(openapi_url=None), page, shelf))

    async def _wait_for_offer(self) -> Offer:
        """What the API offers; it may be starting, too."""
        async with asyncio.timeout(_API_STARTS_S):
            while True:
                with suppress(TesseraError):
                    return await self._backend.offer()
                await asyncio.sleep(_LOOK_AGAIN_S)


class BesideAnother:
    """Keeps the page's links below its own prefix: Gradio names its manifest from the server's root.

    Args:
        app: The page.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; documents alone are touched."""
        start: Message | None = None
        body = b""

        async def send_mended(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                kind = MutableHeaders(scope=message).get("Content-Type", "")
                encoded = "Content-Encoding" in MutableHeaders(scope=message)
                if kind.startswith("text/html") and not encoded:
                    start = message
                    return
            elif start is not None and message["type"] == "http.response.body":
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                body = body.replace(*_ROOT_LINK)
                MutableHeaders(scope=start)["Content-Length"] = str(len(body))
                await send(start)
                message = message | {"body": body}  # type: ignore[operator]
            await send(message)

        await self._app(scope, receive, send_mended)
