"""What dialects share: bodies read within limits, and errors in the shape that a dialect's clients read.

It refuses to know any dialect's words.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from serve_app.api.body import JSON, TENANT_HEADER, read_object
from serve_app.api.problems import (
    Problems,
    UnsupportedBody,
    internal_error,
    note_failure,
)
from serve_app.api.schemas import Problem
from serve_app.contracts import TENANT_PATTERN
from serve_app.errors import InvalidParameter, TesseraError

Envelope = Callable[[Problem], dict[str, Any]]
Body = TypeVar("Body", bound=BaseModel)

log = logging.getLogger(__name__)


def speaking(problems: Problems, envelope: Envelope) -> type[APIRoute]:
    """A kind of route whose errors are wrapped by `envelope` instead of being problem documents."""

    class SpeakingRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            serve = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    return await serve(request)
                except (ClientDisconnect, HTTPException):
                    raise
                except Exception as fault:
                    document = describe(fault, problems, request.state.request_id)
                    return _response(document, envelope(document))

            return handler

    return SpeakingRoute


def describe(fault: Exception, problems: Problems, request_id: str) -> Problem:
    """Any exception as a problem document; what is the server's own is logged."""
    if isinstance(fault, TesseraError):
        error = fault
    elif isinstance(fault, RequestValidationError):
        error = _invalid(fault.errors()[0])
    else:
        facts = {"action": "unexpected_error", "request_id": request_id}
        log.error("unexpected_error", extra=facts, exc_info=fault)
        error = internal_error()
    document = problems.document(error, request_id)
    if isinstance(fault, TesseraError):
        note_failure(error, document)
    return document


def _response(document: Problem, body: dict[str, Any]) -> Response:
    wait_s = document.retry_after_s
    headers = {} if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}
    return JSONResponse(body, document.status, headers)


async def read_body(request: Request, kind: type[Body], limit_bytes: int) -> Body:
    """Reads a JSON body with pictures in base64.

    Args:
        request: Its body not yet read.
        kind: What it should be.
        limit_bytes: The most that one picture may weigh.

    Raises:
        RequestError: it is not that.
    """
    given = request.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if given != JSON:
        raise UnsupportedBody(
            f"Content-Type: {given or 'none'} is not read here",
            field="Content-Type",
            allowed=JSON,
        )
    try:
        return kind.model_validate(await read_object(request, limit_bytes))
    except ValidationError as error:
        raise _invalid(dict(error.errors(include_url=False)[0])) from None


def _invalid(fault: dict[str, Any]) -> InvalidParameter:
    field = ".".join(str(part) for part in fault["loc"]) or "body"
    return InvalidParameter(f"{field}: {fault['msg']}", field=field)


def tenant_parameter() -> list[dict[str, Any]]:
    """The header that says on whose behalf, for the OpenAPI document."""
    schema = {"type": "string", "pattern": TENANT_PATTERN}
    return [
        {"name": TENANT_HEADER, "in": "header", "description": "On whose behalf.", "schema": schema}
    ]


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The extra of a route that reads its JSON body itself."""
    whole = kind.model_json_schema()
    schema = _inlined(whole, whole.pop("$defs", {}))
    return {
        "requestBody": {"required": True, "content": {JSON: {"schema": schema}}},
        "parameters": tenant_parameter(),
    }


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """A schema with what it refers to written out: the document's components are not ours to add to."""
    if isinstance(node, list):
        return [_inlined(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rsplit("/", 1)[1]], definitions)
    return {name: _inlined(one, definitions) for name, one in node.items()}
