"""The form of `POST /v1/images/edits`: read, and described for the OpenAPI document.

What the dialect does not know itself is one of our own parameters. It refuses to know what becomes of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from serve_app.api.body import ALLOWANCE_BYTES, MULTIPART, PICTURES_AT_LIMIT, bounded
from serve_app.api.dialects.speaking import tenant_parameter
from serve_app.api.multipart import IMAGE_FIELD, Form, read_form
from serve_app.api.openapi import parameter_schemas
from serve_app.api.problems import UnsupportedBody
from serve_app.contracts import UpscaleParams, Upscaler
from serve_app.errors import InvalidParameter

MOST_PARTIAL = 3
MOST_RESULTS = 10
IGNORED = frozenset(
    [
        "background",
        "complexity",
        "input_fidelity",
        "moderation",
        "quality",
        "safety_identifier",
        "user",
    ]
)
"""Members of the dialect that say nothing to an upscaler."""


class EditForm(Form):
    """The parts of an edit, in which a picture may be named as a list's."""

    def on_headers_finished(self) -> None:
        """Opens a part; see `Form`."""
        self._disposition = re.sub(rb'name="image\[\d*\]"', b'name="image"', self._disposition)
        super().on_headers_finished()


@dataclass(frozen=True, slots=True)
class Edit:
    """What a form asks for."""

    image: bytes
    params: UpscaleParams
    count: int
    as_url: bool
    stream: bool
    partial_images: int


async def read_edit(request: Request, upscaler: Upscaler, limit_bytes: int) -> Edit:
    """Reads a form; raises RequestError."""
    content_type = request.headers.get("Content-Type", "")
    if content_type.split(";")[0].strip().lower() != MULTIPART:
        raise UnsupportedBody(
            f"Content-Type: only {MULTIPART} is read here", field="Content-Type", allowed=MULTIPART
        )
    most = limit_bytes * PICTURES_AT_LIMIT + ALLOWANCE_BYTES
    chunks = bounded(request, limit_bytes, most)
    form = await read_form(chunks, content_type, limit_bytes, EditForm)
    image = form.files.get(IMAGE_FIELD)
    if image is None:
        raise InvalidParameter("image: missing", field=IMAGE_FIELD, allowed="one file")
    texts = {name: text for name, text in form.texts.items() if name not in IGNORED}
    as_url = _word(texts, "response_format", ("b64_json", "url")) == "url"
    stream = _word(texts, "stream", ("false", "true")) == "true"
    count = _number(texts, "n", 1, 1, 1 if stream else MOST_RESULTS)
    partial_images = _number(texts, "partial_images", 0, 0, MOST_PARTIAL)
    params = await _params(texts, upscaler)
    return Edit(image, params, count, as_url, stream, partial_images)


async def _params(texts: dict[str, str], upscaler: Upscaler) -> UpscaleParams:
    """What is left of the texts are our own parameters."""
    fields: dict[str, Any] = dict(texts)
    if (size := fields.pop("size", "auto")) not in ("auto", ""):
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
        if found is None:
            raise InvalidParameter(
                "size: neither WIDTHxHEIGHT nor auto", field="size", allowed="WIDTHxHEIGHT or auto"
            )
        fields |= {"width": found[1], "height": found[2]}
    if "output_compression" in fields:
        fields["quality"] = fields.pop("output_compression")
    models = {model.name: model for model in await upscaler.models()}
    name = fields.get("model") or next(iter(models))
    if name not in models:
        known = ", ".join(models)
        raise InvalidParameter(f"model: no model {name[:40]!r}", field="model", allowed=known)
    model = models[name]
    if not model.takes_prompt:
        fields.pop("prompt", None)
    return UpscaleParams.parse(fields)


def _word(texts: dict[str, str], name: str, words: tuple[str, ...]) -> str:
    """One of some words, the first where none is given."""
    found = texts.pop(name, "").lower() or words[0]
    if found not in words:
        allowed = " or ".join(words)
        raise InvalidParameter(
            f"{name}: {found[:40]!r}; allowed: {allowed}", field=name, allowed=allowed
        )
    return found


def _number(texts: dict[str, str], name: str, absent: int, low: int, high: int) -> int:
    found = texts.pop(name, "") or str(absent)
    if not re.fullmatch(r"[0-9]{1,3}", found) or not low <= int(found) <= high:
        allowed = f"{low} to {high}"
        raise InvalidParameter(f"{name}: allowed: {allowed}", field=name, allowed=allowed)
    return int(found)


def edit_body() -> dict[str, Any]:
    """The form's members for the OpenAPI document."""
    own = {n: s for n, s in parameter_schemas().items() if n not in ("quality", "controls")}
    members = own | {
        "image": {"type": "string", "format": "binary", "description": "One picture."},
        "size": {"type": "string", "description": "`WIDTHxHEIGHT`, to fit into, or `auto`."},
        "n": {"type": "integer", "minimum": 1, "maximum": MOST_RESULTS},
        "response_format": {"type": "string", "enum": ["b64_json", "url"]},
        "output_compression": {"type": "integer", "minimum": 1, "maximum": 100},
        "stream": {"type": "boolean"},
        "partial_images": {"type": "integer", "minimum": 0, "maximum": MOST_PARTIAL},
    }
    schema = {"type": "object", "required": [IMAGE_FIELD], "properties": members}
    return {
        "requestBody": {"required": True, "content": {MULTIPART: {"schema": schema}}},
        "parameters": tenant_parameter(),
    }
