"""An edit as a stream of server-sent events: partial pictures as tiles land, then the result or an error.

It refuses to know how the picture is made.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from typing import Literal

from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.api.dialects.errand import Errands
from serve_app.api.dialects.openai_schemas import ErrorAnswer, ImageEvent, Usage, openai_error
from serve_app.api.dialects.speaking import describe
from serve_app.api.events import KEEP_ALIVE_S
from serve_app.api.presence import while_connected
from serve_app.api.problems import Problems
from serve_app.contracts import Progress, UpscaleRequest

log = logging.getLogger(__name__)


Kind = Literal["image_edit.partial_image", "image_edit.completed"]


class EditStream(Response):
    """Tells partial pictures and the result as server-sent events; a client that leaves ends the work.

    Args:
        errands: Run it.
        asked: What.
        partial_images: The most partial pictures that are told.
        problems: Describes an error.
    """

    media_type = "text/event-stream"

    def __init__(
        self, errands: Errands, asked: UpscaleRequest, partial_images: int, problems: Problems
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._errands = errands
        self._asked = asked
        self._most = partial_images
        self._problems = problems
        self._told = 0
        self._fraction = 0.0
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await while_connected(receive, self._stream(send))
        except (ClientDisconnect, OSError):
            log.info("client_gone", extra={"action": "client_gone", "path": scope["path"]})
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, send: Send) -> None:
        running = asyncio.create_task(self._work())
        try:
            while (chunk := await self._next()) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _next(self) -> bytes | None:
        try:
            return await asyncio.wait_for(self._events.get(), KEEP_ALIVE_S)
        except TimeoutError:
            return b": waiting\n\n"

    async def _work(self) -> None:
        try:
            if self._most:
                made = await self._errands.run_seen(self._asked, self._progress, self._preview)
            else:
                made = await self._errands.run(self._asked)
            size = f"{made.width}x{made.height}"
            self._put("image_edit.completed", made.image, made.media_type, size)
        except Exception as fault:
            document = describe(fault, self._problems, self._asked.request_id)
            self._events.put_nowait(_event("error", ErrorAnswer(**openai_error(document))))
        self._events.put_nowait(None)

    def _progress(self, progress: Progress) -> None:
        self._fraction = progress.tiles_done / max(1, progress.tiles_total)

    def _preview(self, jpeg: bytes) -> None:
        """Tells a preview when it is time for the next: they are spread over the work."""
        if self._told < self._most and self._fraction >= self._told / self._most:
            self._put("image_edit.partial_image", jpeg, "image/jpeg", "auto")
            self._told += 1

    def _put(self, kind: Kind, image: bytes, media_type: str, size: str) -> None:
        completed = kind == "image_edit.completed"
        event = ImageEvent(
            type=kind,
            b64_json=base64.b64encode(image).decode("ascii"),
            created_at=int(time.time()),
            output_format=media_type.split("/")[1],
            size=size,
            partial_image_index=None if completed else self._told,
            usage=Usage() if completed else None,
        )
        self._events.put_nowait(_event(kind, event))


def _event(name: str, data: BaseModel) -> bytes:
    return f"event: {name}\ndata: {data.model_dump_json(exclude_none=True)}\n\n".encode()
