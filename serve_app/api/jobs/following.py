"""A job's events as a stream of server-sent events, from any of them on.

It refuses to know where events come from; see `jobs.watching`.
"""

from __future__ import annotations

import json
import logging
from contextlib import aclosing

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.api.events import KEEP_ALIVE_S
from serve_app.api.jobs.schemas import moment
from serve_app.api.presence import while_connected
from serve_app.errors import InvalidParameter
from serve_app.jobs.records import JobRecord
from serve_app.jobs.watching import Hub, Told

LAST_EVENT_HEADER = "Last-Event-ID"
MOST = 2**31 - 1

log = logging.getLogger(__name__)


class JobEvents(Response):
    """Tells a job's events until it has ended or the client is gone.

    Args:
        hub: Knows them.
        job: Whose.
        after: Sequence number of the last that the client has.
        keep_alive_s: Longest silence, s.
    """

    media_type = "text/event-stream"

    def __init__(
        self, hub: Hub, job: JobRecord, after: int, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._hub = hub
        self._job = job
        self._after = after
        self._keep_alive_s = keep_alive_s

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
        async with aclosing(self._hub.follow(self._job, self._after, self._keep_alive_s)) as tale:  # type: ignore[type-var]
            async for told in tale:
                body = b"".join(map(spoken, told)) or b": waiting\n\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})


def spoken(told: Told) -> bytes:
    """Formats one event; JSON has no line breaks of its own, so its data is one line."""
    event = told.event
    data = {"job_id": event.job_id, "at": moment(event.at), **event.data}
    if event.kind == "item.preview":
        data.pop("blob", None)
        data["url"] = f"/v1/jobs/{event.job_id}/items/{event.data['number']}/preview"
    if event.kind == "item.progress":
        data["eta_s"] = None if told.eta_s is None else round(told.eta_s, 1)
    return f"id: {event.sequence}\nevent: {event.kind}\ndata: {json.dumps(data)}\n\n".encode()


def place_of(request: Request, after: int | None) -> int:
    """Where a client wants to go on: what it asks for, or what its browser says it had last.

    Raises:
        InvalidParameter: a `Last-Event-ID` that is no number.
    """
    if after is not None:
        return after
    given = request.headers.get(LAST_EVENT_HEADER, "") or "0"
    if not (given.isascii() and given.isdecimal() and len(given) <= 10 and int(given) <= MOST):
        raise InvalidParameter(
            f"{LAST_EVENT_HEADER}: not a sequence number",
            field=LAST_EVENT_HEADER,
            allowed="0 or more",
        )
    return int(given)
