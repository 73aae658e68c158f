"""Reads an upload from a request's body: multipart, or JSON with the picture in base64.

The limit on bytes acts while the body arrives, whether or not a Content-Length told its size. It refuses
to know what the picture is: its bytes are passed on as they came.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from serve_app.api.multipart import IMAGE_FIELD, over_limit, read_form
from serve_app.api.problems import UnsupportedBody
from serve_app.contracts import UpscaleParams
from serve_app.errors import InvalidParameter, RequestError

MULTIPART = "multipart/form-data"
JSON = "application/json"
BASE64_FIELD = "image_base64"
ALLOWANCE_BYTES = 256 * 2**10
"""What a body may hold beside the picture: two prompts at their longest, with room for part headers."""

_TEXTS_THAT_MAY_BE_EMPTY = ("prompt", "negative_prompt")


@dataclass(frozen=True)
class Upload:
    """One picture as it came, its name on the caller's side (untrusted, may be empty), and its parameters."""

    image: bytes
    filename: str
    params: UpscaleParams


async def read_upload(request: Request, limit_bytes: int) -> Upload:
    """Reads and checks a request's body.

    Args:
        request: Its body not yet read.
        limit_bytes: The most that the picture may weigh.

    Raises:
        UnsupportedBody: a content type that is neither multipart nor JSON.
        RequestError: a body that cannot be read as what it says it is.
        InvalidParameter: a field that is missing, unknown, repeated or out of range.
        TooLarge: more than `limit_bytes`.
    """
    content_type = request.headers.get("Content-Type", "")
    kind = content_type.split(";")[0].strip().lower()
    if kind == MULTIPART:
        chunks = _bounded(request, limit_bytes, limit_bytes + ALLOWANCE_BYTES)
        form = await read_form(chunks, content_type, limit_bytes)
        if form.image is None or not (form.image or form.filename):
            raise _missing(IMAGE_FIELD, "one file")
        given = {k: v for k, v in form.texts.items() if v or k in _TEXTS_THAT_MAY_BE_EMPTY}
        return Upload(form.image, form.filename, UpscaleParams.parse(given))
    if kind == JSON:
        most = -(-limit_bytes * 4 // 3) + ALLOWANCE_BYTES
        body = b"".join([chunk async for chunk in _bounded(request, limit_bytes, most)])
        fields = _parse_object(body)
        if fields.get(BASE64_FIELD) is None:
            raise _missing(BASE64_FIELD, "a picture's bytes in base64")
        image = _decode(fields.pop(BASE64_FIELD))
        if len(image) > limit_bytes:
            raise over_limit(limit_bytes)
        return Upload(image, "", UpscaleParams.parse(fields))
    raise UnsupportedBody(
        f"Content-Type: {kind or 'none'} is not read here",
        field="Content-Type",
        allowed=f"{MULTIPART} or {JSON}",
    )


async def _bounded(request: Request, limit_bytes: int, most_bytes: int) -> AsyncIterator[bytes]:
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise over_limit(limit_bytes)
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > most_bytes:
            raise over_limit(limit_bytes)
        yield chunk


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(f"The JSON body is malformed: {reason}.", field="body") from None
    if not isinstance(found, dict):
        raise RequestError("The JSON body must be an object.", field="body", allowed="an object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidParameter(f"{name}: given twice", field=name, allowed="once")
        found[name] = value
    return found


def _decode(text: Any) -> bytes:
    """Decodes base64, which may be wrapped in lines and may follow a `data:` URL's head."""
    if not isinstance(text, str):
        raise _not_base64("not a text")
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise _not_base64("a data: URL without ;base64,")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _not_base64(str(error)) from None


def _not_base64(reason: str) -> InvalidParameter:
    return InvalidParameter(
        f"{BASE64_FIELD}: {reason}", field=BASE64_FIELD, allowed="a picture's bytes in base64"
    )


def _missing(field: str, allowed: str) -> InvalidParameter:
    return InvalidParameter(f"{field}: missing", field=field, allowed=allowed)
