"""The outermost layer of the HTTP door: gives each request its id and lets no error out unanswered.

Pure ASGI, so that a stream passes through it untouched. It refuses to know routes and the error tree's
branches; errors that were foreseen have become responses before they come here.
"""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.problems import Problems, internal_error, problem_response

REQUEST_ID_HEADER = "X-Request-Id"
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = logging.getLogger(__name__)


class Edge:
    """ASGI middleware: a request id on every response, and a 500 problem for the unforeseen.

    Args:
        app: What is wrapped.
        problems: Writes the 500.
        stamps_request_id: False where a proxy in front adds the header itself, as Ray Serve's does.
    """

    def __init__(self, app: ASGIApp, problems: Problems, stamps_request_id: bool = True) -> None:
        self._app = app
        self._problems = problems
        self._stamps_request_id = stamps_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._stamps_request_id:
                    MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_stamped)
        except Exception:
            facts = {"request_id": request_id, "method": scope["method"], "path": scope["path"]}
            log.exception("unexpected_error", extra={"action": "unexpected_error", **facts})
            if started:
                raise  # half a response is out; the server must cut the connection
            document = self._problems.document(internal_error(), request_id)
            await problem_response(document)(scope, receive, send_stamped)


def request_id_of(headers: Headers) -> str:
    """The caller's own id where it is harmless in a log and a header, else a drawn one."""
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex
