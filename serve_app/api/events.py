"""A result as a stream of server-sent events: `progress` as it comes, then one `result` or `error`.

Reports are coalesced, so that a fast engine does not flood a slow reader; a comment now and then keeps
proxies from closing a quiet connection. It refuses to know what the work is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.api.answers import answer_of
from serve_app.api.presence import while_connected
from serve_app.api.problems import Problems, internal_error, note_failure
from serve_app.contracts import Progress, ProgressCallback, UpscaleResult
from serve_app.errors import TesseraError

PROGRESS_INTERVAL_S = 0.1
KEEP_ALIVE_S = 15.0

Work = Callable[[ProgressCallback], Coroutine[Any, Any, UpscaleResult]]

log = logging.getLogger(__name__)


class EventStream(Response):
    """Runs one call while its caller listens, and tells how it goes.

    Args:
        work: Starts the call; is given the callback that takes progress.
        problems: Describes an error.
        request_id: The id to describe it by.
        keep_alive_s: Longest silence, s.
    """

    media_type = "text/event-stream"

    def __init__(
        self, work: Work, problems: Problems, request_id: str, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers)
        del self.headers["Content-Length"]
        self._work = work
        self._problems = problems
        self._request_id = request_id
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the work has ended or the client is gone, which ends the work."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await while_connected(receive, self._stream(send))
        except (ClientDisconnect, OSError):
            facts = {"request_id": self._request_id, "path": scope["path"]}
            log.info("client_gone", extra={"action": "client_gone", **facts})
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, send: Send) -> None:
        reports = _Latest()
        running = asyncio.create_task(self._work(reports.put))
        running.add_done_callback(lambda _: reports.changed.set())
        try:
            while not running.done():
                await reports.wait(self._keep_alive_s)
                await _send(send, reports.take() or b": waiting\n\n")
                if not running.done():
                    await asyncio.wait({running}, timeout=PROGRESS_INTERVAL_S)
            if left := reports.take():
                await _send(send, left)
            await _send(send, self._ending(running))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _ending(self, ended: asyncio.Task[UpscaleResult]) -> bytes:
        try:
            return event("result", answer_of(ended.result()))
        except TesseraError as error:
            document = self._problems.document(error, self._request_id)
            note_failure(error, document)
        except Exception:
            facts = {"action": "unexpected_error", "request_id": self._request_id}
            log.exception("unexpected_error", extra=facts)
            document = self._problems.document(internal_error(), self._request_id)
        return event("error", document)


class _Latest:
    """Holds the newest report until it is taken; older ones are dropped."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._held: Progress | None = None

    def put(self, progress: Progress) -> None:
        self._held = progress
        self.changed.set()

    def take(self) -> bytes | None:
        held, self._held = self._held, None
        self.changed.clear()
        return event("progress", held) if held else None

    async def wait(self, longest_s: float) -> None:
        try:
            await asyncio.wait_for(self.changed.wait(), longest_s)
        except TimeoutError:
            return


def event(name: str, data: BaseModel) -> bytes:
    """Formats one event; JSON has no line breaks of its own, so its data is one line."""
    return f"event: {name}\ndata: {data.model_dump_json(exclude_none=name == 'error')}\n\n".encode()


async def _send(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})
