"""The part of the OpenAPI document that FastAPI cannot infer: both bodies and all answers of an upscale.

Parameters are described from `UpscaleParams` itself, so a new one appears by itself. It refuses to know
how a request is served.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve_app.api.body import BASE64_FIELD, JSON, MULTIPART
from serve_app.api.edge import REQUEST_ID_HEADER
from serve_app.api.multipart import IMAGE_FIELD
from serve_app.api.negotiation import EVENTS
from serve_app.api.problems import PROBLEM_MEDIA_TYPE, STATUS
from serve_app.api.schemas import Problem, UpscaleAnswer
from serve_app.contracts import Progress, UpscaleParams

_REF = "#/components/schemas/{model}"
_SPOKEN: list[type[BaseModel]] = [Problem, Progress, UpscaleAnswer]
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "max_length": "maxLength",
}
"""Pydantic leaves bounds out of the schema of a field that may also be null; they are put back by these."""
_TEXT = {"schema": {"type": "string"}}
_WHOLE = {"schema": {"type": "integer"}}


def parameter_schemas() -> dict[str, Any]:
    """The JSON schema of each upscale parameter; "null" is left out, as a form cannot send it."""
    schema = UpscaleParams.model_json_schema()
    described = {}
    for name, field in schema["properties"].items():
        kind = next(option for option in field["anyOf"] if option.get("type") != "null")
        if "$ref" in kind:
            kind = schema["$defs"][kind["$ref"].rsplit("/", 1)[1]]
        bounds = {
            keyword: getattr(rule, attribute)
            for rule in UpscaleParams.model_fields[name].metadata
            for attribute, keyword in _BOUNDS.items()
            if hasattr(rule, attribute)
        }
        described[name] = {**kind, **bounds, "title": name, "description": field["description"]}
    return described


def upscale_request() -> dict[str, Any]:
    """The extra of `POST /v1/upscale`: its two bodies and the headers that it reads."""
    picture = {
        "type": "string",
        "format": "binary",
        "contentMediaType": "application/octet-stream",
        "description": "The picture, a PNG, JPEG or WebP file.",
    }
    encoded = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "The picture's bytes in base64; a data: URL is accepted.",
    }
    request_id = {
        "name": REQUEST_ID_HEADER,
        "in": "header",
        "description": "Your own id of this request, 1 to 128 of A-Z a-z 0-9 . _ -; drawn if absent.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    }
    bodies = {MULTIPART: _body(IMAGE_FIELD, picture), JSON: _body(BASE64_FIELD, encoded)}
    return {"requestBody": {"required": True, "content": bodies}, "parameters": [request_id]}


def _body(name: str, picture: dict[str, Any]) -> dict[str, Any]:
    fields = {name: picture, **parameter_schemas()}
    return {
        "schema": {
            "type": "object",
            "required": [name],
            "properties": fields,
            "additionalProperties": False,
        }
    }


def upscale_responses() -> dict[int | str, dict[str, Any]]:
    """The answers of `POST /v1/upscale`, each problem status with the classes that lead to it."""
    answers: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "The upscaled picture, alone or within JSON or a stream, by `Accept`.",
            "headers": {
                "X-Seed": {"description": "Seed that was used.", **_WHOLE},
                "X-Model": {"description": "Model that was used.", **_TEXT},
                "X-Tiles": {"description": "Tiles that the picture was cut into.", **_WHOLE},
                "Server-Timing": {"description": "Time of each stage, ms.", **_TEXT},
                REQUEST_ID_HEADER: {"description": "Id of this request.", **_TEXT},
            },
            "content": {
                # One range, not three types: /docs sends it as Accept whatever format is asked for.
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                JSON: {"schema": {"$ref": _REF.format(model="UpscaleAnswer")}},
                EVENTS: {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE},
            },
        }
    }
    for status in sorted(set(STATUS.values())):
        titles = sorted(kind.title for kind, found in STATUS.items() if found == status)
        answers[status] = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(titles)}.",
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
        }
    return answers


_STREAM_EXAMPLE = (
    'event: progress\ndata: {"stage":"denoise","tiles_done":3,"tiles_total":20,'
    '"steps_done":31,"steps_total":160}\n\n'
    'event: result\ndata: {"image_base64":"iVBORw0KGgo...","media_type":"image/png", ...}\n\n'
)


def describe(app: FastAPI) -> None:
    """Adds the schemas that are only referred to by name to the application's document."""
    infer = app.openapi

    def openapi() -> dict[str, Any]:
        document = infer()
        _, found = models_json_schema(
            [(kind, "serialization") for kind in _SPOKEN], ref_template=_REF
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in found["$defs"].items():
            schemas.setdefault(name, schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
