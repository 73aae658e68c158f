"""Errors become RFC 9457 problem documents here, and nowhere else.

The one table says which status each branch of the error tree has over HTTP. Three faults exist only in HTTP
(a body or an answer of the wrong kind, a path or method that is not there); they are written down here so
that the tree in `errors` need not know the protocol. This module refuses to know why an error happened.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from serve_app import errors
from serve_app.api.schemas import Problem

PROBLEM_MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

log = logging.getLogger(__name__)


class UnsupportedBody(errors.RequestError):
    """The request's body is of a media type that this route does not read."""

    code = "unsupported-media-type"
    title = "Unsupported media type"


class NotAcceptable(errors.RequestError):
    """The request's `Accept` admits nothing that this route can answer with."""

    code = "not-acceptable"
    title = "Not acceptable"


STATUS: dict[type[errors.TesseraError], int] = {
    errors.TesseraError: 500,
    errors.RequestError: 400,
    errors.InvalidParameter: 422,
    errors.UnsupportedImage: 415,
    errors.BrokenImage: 422,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.WrongState: 409,
    errors.IdempotencyConflict: 422,
    errors.QuotaExceeded: 429,
    errors.Busy: 429,
    errors.DeadlineExceeded: 504,
    errors.TileFailed: 500,
    errors.GarbageTile: 500,
    errors.BlobFailed: 500,
    errors.BlobMissing: 500,
    errors.BlobCorrupt: 500,
    errors.LeaseLost: 500,
    errors.ReplicaLost: 503,
    errors.ConfigurationError: 500,
    UnsupportedBody: 415,
    NotAcceptable: 406,
}


def status_of(error: errors.TesseraError) -> int:
    """The HTTP status of an error: its own class's, or its nearest ancestor's in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def internal_error() -> errors.TesseraError:
    """What a caller is told of an error that nobody foresaw: nothing but where to find it."""
    return errors.TesseraError("Something went wrong; the server's log has it by the request id.")


@dataclass(frozen=True)
class Problems:
    """Writes problem documents.

    Attributes:
        retry_after_s: Seconds to wait, told to a caller when a 429 or 503 does not say itself.
    """

    retry_after_s: float

    def document(self, error: errors.TesseraError, request_id: str) -> Problem:
        """Describes an error as a problem document."""
        status = status_of(error)
        wait_s = error.retry_after_s
        if wait_s is None and status in (429, 503):
            wait_s = self.retry_after_s
        detail = error.detail
        if isinstance(error, errors.ConfigurationError):  # may name files of the server
            detail = "The server is set up wrongly; its log has the reason by the request id."
        return Problem(
            type=f"urn:tessera:problem:{error.code}",
            title=error.title,
            status=status,
            detail=detail,
            request_id=request_id,
            field=error.field,
            allowed=error.allowed,
            retry_after_s=wait_s,
        )

    def response(self, error: errors.TesseraError, request_id: str) -> Response:
        """Describes an error as a whole response, with `Retry-After` where it helps; logs a 5xx."""
        document = self.document(error, request_id)
        note_failure(error, document)
        return problem_response(document)


def note_failure(error: errors.TesseraError, document: Problem) -> None:
    """Logs an error that is the server's own, by the request id."""
    if document.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        facts = {"request_id": document.request_id, "code": error.code, "detail": error.detail}
        log.warning("request_failed", extra={"action": "request_failed", **facts}, exc_info=error)


def problem_response(document: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Sends a problem document under its own media type."""
    sent = dict(headers or {})
    if document.retry_after_s is not None:
        sent["Retry-After"] = str(math.ceil(document.retry_after_s))
    body = document.model_dump_json(exclude_none=True)
    return Response(body, document.status, sent, PROBLEM_MEDIA_TYPE)


def framework_problem(
    status: int, request: Request, headers: Mapping[str, str] | None = None
) -> Response:
    """Answers for a fault that the framework found: no such path, no such method here."""
    phrase = HTTPStatus(status).phrase
    allowed = (headers or {}).get("Allow")
    path = request.url.path
    detail = {
        404: f"There is nothing at {path}.",
        405: f"{path} does not take {request.method}.",
    }.get(status, f"{phrase}.")
    document = Problem(
        type=f"urn:tessera:problem:{phrase.lower().replace(' ', '-')}",
        title=phrase,
        status=status,
        detail=detail,
        request_id=request.state.request_id,
        allowed=allowed,
    )
    return problem_response(document, headers)


def _methods(request: Request) -> list[str]:
    """All that a path takes; the framework tells those of its first route alone."""
    routes = request.app.routes

    def taken(method: str) -> bool:
        scope = dict(request.scope) | {"method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    return [method for method in _METHODS if taken(method)]


def install_problems(app: FastAPI, problems: Problems) -> None:
    """Makes every error that leaves a route of `app` a problem document."""

    async def on_tessera_error(request: Request, error: Any) -> Response:
        return problems.response(error, request.state.request_id)

    async def on_framework_error(request: Request, error: Any) -> Response:
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": ", ".join(_methods(request))}
        return framework_problem(error.status_code, request, headers)

    async def on_invalid_request(request: Request, error: Any) -> Response:
        fault = error.errors()[0]
        field = str(fault["loc"][-1])
        found = errors.InvalidParameter(f"{field}: {fault['msg']}", field=field)
        return problems.response(found, request.state.request_id)

    async def on_client_gone(request: Request, error: Any) -> Response:
        facts = {"request_id": request.state.request_id, "path": request.url.path}
        log.info("client_gone", extra={"action": "client_gone", **facts})
        return Response(status_code=CLIENT_CLOSED_REQUEST)  # for the access log: nobody reads it

    app.add_exception_handler(errors.TesseraError, on_tessera_error)
    app.add_exception_handler(HTTPException, on_framework_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(ClientDisconnect, on_client_gone)
