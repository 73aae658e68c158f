"""Reads an upload from a request: multipart, or JSON with the pictures in base64 or by URL; and whose it is.

The limits on bytes act while the body arrives, whether or not a Content-Length told its size. It refuses
to know what the pictures are: their bytes are passed on as they came, and a URL as it was written.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request

from serve_app.api.multipart import CONTROL_IMAGE_PREFIX, IMAGE_FIELD, over_limit, read_form
from serve_app.api.problems import UnsupportedBody
from serve_app.contracts import DEFAULT_TENANT, TENANT_PATTERN, Priority, UpscaleParams
from serve_app.errors import InvalidParameter, RequestError, TooLarge
from serve_app.fetch.client import FIELD as URL_FIELD

MULTIPART = "multipart/form-data"
JSON = "application/json"
BASE64_FIELD = "image_base64"
CONTROLS_BASE64_FIELD = "control_images_base64"
PRIORITY_FIELD = "priority"
TENANT_HEADER = "X-Tenant-Id"
PICTURES_AT_LIMIT = 2
"""What all pictures of a request may weigh together, as a multiple of one picture's limit."""
ALLOWANCE_BYTES = 256 * 2**10
"""What a body may hold beside its pictures: two prompts at their longest, with room for part headers."""

_HALF = "a text in it holds half of a surrogate pair"
_BASE64 = "a picture's bytes in base64"
_TEXTS_THAT_MAY_BE_EMPTY = ("prompt", "negative_prompt")


@dataclass(frozen=True)
class Upload:
    """What a body holds: the picture, or where to fetch it, the other being None.

    `filename` is the picture's on the caller's side: untrusted, may be empty.
    """

    image: bytes | None
    image_url: str | None
    control_images: dict[str, bytes]
    filename: str
    params: UpscaleParams
    priority: Priority


async def read_upload(request: Request, limit_bytes: int) -> Upload:
    """Reads and checks a request's body.

    Args:
        request: Its body not yet read.
        limit_bytes: The most that each picture may weigh; all together `PICTURES_AT_LIMIT` times that.

    Raises:
        UnsupportedBody: a content type that is neither multipart nor JSON.
        RequestError: a body that cannot be read as what it says it is.
        InvalidParameter: a field that is missing, unknown, repeated or out of range.
        TooLarge: more than `limit_bytes`.
    """
    content_type = request.headers.get("Content-Type", "")
    kind = content_type.split(";")[0].strip().lower()
    if kind == MULTIPART:
        return await _read_multipart(request, content_type, limit_bytes)
    if kind == JSON:
        return await _read_json(request, limit_bytes)
    raise UnsupportedBody(
        f"Content-Type: {kind or 'none'} is not read here",
        field="Content-Type",
        allowed=f"{MULTIPART} or {JSON}",
    )


async def _read_multipart(request: Request, content_type: str, limit_bytes: int) -> Upload:
    most = limit_bytes * PICTURES_AT_LIMIT + ALLOWANCE_BYTES
    form = await read_form(bounded(request, limit_bytes, most), content_type, limit_bytes)
    image = form.files.pop(IMAGE_FIELD, None)
    if not image and not form.filename:  # an empty field of a page's form
        image = None
    url = form.texts.pop(URL_FIELD, None) or None
    _check_one(image is not None, url is not None, IMAGE_FIELD, "one file")
    controls = {n.removeprefix(CONTROL_IMAGE_PREFIX): data for n, data in form.files.items()}
    given = {k: v for k, v in form.texts.items() if v or k in _TEXTS_THAT_MAY_BE_EMPTY}
    priority = priority_of(given.pop(PRIORITY_FIELD, None))
    return Upload(image, url, controls, form.filename, UpscaleParams.parse(given), priority)


async def _read_json(request: Request, limit_bytes: int) -> Upload:
    fields = await read_object(request, limit_bytes)
    text, url = fields.pop(BASE64_FIELD, None), fields.pop(URL_FIELD, None)
    _check_one(text is not None, url is not None, BASE64_FIELD, _BASE64)
    if not isinstance(url, str | None):
        raise InvalidParameter(f"{URL_FIELD}: not a text", field=URL_FIELD, allowed="a URL")
    image = None if text is None else decode_picture(text, BASE64_FIELD, limit_bytes)
    encoded = fields.pop(CONTROLS_BASE64_FIELD, None) or {}
    if not isinstance(encoded, dict):
        raise InvalidParameter(
            f"{CONTROLS_BASE64_FIELD}: not an object",
            field=CONTROLS_BASE64_FIELD,
            allowed="an object of pictures in base64 by their control's name",
        )
    controls = {
        name: decode_picture(text, f"{CONTROLS_BASE64_FIELD}.{name}", limit_bytes)
        for name, text in encoded.items()
    }
    priority = priority_of(fields.pop(PRIORITY_FIELD, None))
    return Upload(image, url, controls, "", UpscaleParams.parse(fields), priority)


def tenant_of(headers: Headers) -> str:
    """On whose behalf a request comes; believed as it stands, so whatever is in front must set it.

    Raises:
        InvalidParameter: a name of other letters, or too long a one.
    """
    given = headers.get(TENANT_HEADER, DEFAULT_TENANT)
    if re.fullmatch(TENANT_PATTERN, given) is None:
        raise InvalidParameter(
            f"{TENANT_HEADER}: not a tenant's name", field=TENANT_HEADER, allowed=TENANT_PATTERN
        )
    return given


def priority_of(given: Any, absent: Priority = Priority.INTERACTIVE) -> Priority:
    """Reads a priority.

    Args:
        given: As it came.
        absent: What holds where none was given.

    Raises:
        InvalidParameter: no such priority.
    """
    if given is None:
        return absent
    try:
        return Priority(given)
    except ValueError:
        allowed = " or ".join(Priority)
        raise InvalidParameter(
            f"{PRIORITY_FIELD}: {given!r}; allowed: {allowed}",
            field=PRIORITY_FIELD,
            allowed=allowed,
        ) from None


async def bounded(request: Request, limit_bytes: int, most_bytes: int) -> AsyncIterator[bytes]:
    """A body as it arrives, up to `most_bytes`; raises TooLarge, which tells of a picture's `limit_bytes`."""
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise _over_all(limit_bytes)
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > most_bytes:
            raise _over_all(limit_bytes)
        yield chunk


def _over_all(limit_bytes: int) -> TooLarge:
    total = limit_bytes * PICTURES_AT_LIMIT
    return TooLarge(
        f"{IMAGE_FIELD}: the upload is over {total} bytes",
        field=IMAGE_FIELD,
        allowed=f"at most {limit_bytes} bytes a picture, {total} in all",
    )


async def read_object(request: Request, limit_bytes: int) -> dict[str, Any]:
    """Reads a body that is a JSON object with pictures in base64; raises RequestError, TooLarge."""
    most = -(-limit_bytes * PICTURES_AT_LIMIT * 4 // 3) + ALLOWANCE_BYTES
    return parse_object(b"".join([part async for part in bounded(request, limit_bytes, most)]))


def parse_object(body: bytes) -> dict[str, Any]:
    """Reads a body that is a JSON object; raises RequestError."""
    found = parse_json(body)
    if not isinstance(found, dict):
        raise RequestError("The JSON body must be an object.", field="body", allowed="an object")
    return found


def parse_json(body: bytes) -> Any:
    """Reads JSON; raises RequestError where it is malformed, names a field twice, or holds half a character."""
    try:
        found = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(f"The JSON body is malformed: {reason}.", field="body") from None
    for name, value in found.items() if isinstance(found, dict) else ():
        if _is_whole(name) and not _is_whole(value):
            raise InvalidParameter(f"{name}: {_HALF}", field=name, allowed="Unicode text")
    if not _is_whole(found):
        raise RequestError(f"The JSON body is malformed: {_HALF}.", field="body")
    return found


def _is_whole(found: Any) -> bool:
    """Whether all texts in it are text everywhere: JSON can spell half of a surrogate pair."""
    waiting = [found]
    try:
        for one in waiting:
            if isinstance(one, str):
                if not one.isascii():
                    one.encode()
            elif isinstance(one, list):
                waiting += one
            elif isinstance(one, dict):
                waiting += [*one, *one.values()]
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidParameter(f"{name}: given twice", field=name, allowed="once")
        found[name] = value
    return found


def decode_picture(text: Any, field: str, limit_bytes: int) -> bytes:
    """Decodes base64, which may be wrapped in lines and may follow a `data:` URL's head.

    Args:
        text: As it came.
        field: Its name in what errors say.
        limit_bytes: The most that the picture may weigh.

    Raises:
        InvalidParameter: no base64.
        TooLarge: over the limit.
    """
    if not isinstance(text, str):
        raise _not_base64(field, "not a text")
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise _not_base64(field, "a data: URL without ;base64,")
    try:
        found = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _not_base64(field, str(error)) from None
    if len(found) > limit_bytes:
        raise over_limit(limit_bytes, IMAGE_FIELD if field == BASE64_FIELD else field)
    return found


def _not_base64(field: str, reason: str) -> InvalidParameter:
    return InvalidParameter(f"{field}: {reason}", field=field, allowed=_BASE64)


def _check_one(has_image: bool, has_url: bool, field: str, allowed: str) -> None:
    """A picture comes in one way."""
    if has_image and has_url:
        detail = f"{URL_FIELD}: give either {field} or {URL_FIELD}, not both"
        raise InvalidParameter(detail, field=URL_FIELD, allowed=f"absent beside {field}")
    if not has_image and not has_url:
        raise InvalidParameter(
            f"{field}: missing", field=field, allowed=f"{allowed}; or {URL_FIELD}"
        )
