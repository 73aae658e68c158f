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

from serve_app.api.answers import FIDELITY_HEADERS, WARNINGS_HEADER
from serve_app.api.body import (
    BASE64_FIELD,
    CONTROLS_BASE64_FIELD,
    JSON,
    MULTIPART,
    PICTURES_AT_LIMIT,
    PRIORITY_FIELD,
    TENANT_HEADER,
)
from serve_app.api.edge import REQUEST_ID_HEADER
from serve_app.api.multipart import CONTROL_IMAGE_PREFIX, IMAGE_FIELD
from serve_app.api.negotiation import EVENTS
from serve_app.api.problems import PROBLEM_MEDIA_TYPE, STATUS
from serve_app.api.schemas import Problem, UpscaleAnswer
from serve_app.contracts import (
    TENANT_PATTERN,
    ControlParams,
    FidelityReport,
    Priority,
    Progress,
    UpscaleParams,
)
from serve_app.fetch.client import FIELD as URL_FIELD
from serve_app.fetch.target import LONGEST_URL
from serve_app.imaging.inspect import ALLOWED_FORMATS

_REF = "#/components/schemas/{model}"
_SPOKEN: list[type[BaseModel]] = [ControlParams, Problem, Progress, UpscaleAnswer]
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "max_length": "maxLength",
}
"""Pydantic leaves bounds out of the schema of a field that may also be null; they are put back by these."""
_TEXT = {"schema": {"type": "string"}}
_NUMBER = {"schema": {"type": "number"}}
_WHOLE = {"schema": {"type": "integer"}}
_EMPTY = {"example": ""}
"""/docs fills a form with examples of its own, scale and width alike, where none is given; empty is absent."""
_URL = {
    "type": "string",
    "format": "uri",
    "maxLength": LONGEST_URL,
    "description": "Where to fetch the picture instead of sending it, if the server has it switched on.",
}


def parameter_schemas() -> dict[str, Any]:
    """The JSON schema of each upscale parameter; "null" is left out, as a form cannot send it."""
    schema = UpscaleParams.model_json_schema(ref_template=_REF)
    described = {}
    for name, field in schema["properties"].items():
        kind = next(option for option in field["anyOf"] if option.get("type") != "null")
        if "$ref" in kind:
            kind = schema["$defs"][kind["$ref"].rsplit("/", 1)[1]]
        bounds = {
            keyword if kind["type"] != "array" else "maxItems": getattr(rule, attribute)
            for rule in UpscaleParams.model_fields[name].metadata
            for attribute, keyword in _BOUNDS.items()
            if hasattr(rule, attribute)
        }
        described[name] = {**kind, **bounds, "title": name, "description": field["description"]}
    return described


def upscale_request() -> dict[str, Any]:
    """The extra of `POST /v1/upscale`: its two bodies and the headers that it reads."""
    return {
        "requestBody": {
            "required": True,
            "content": {MULTIPART: {"schema": _form()}, JSON: {"schema": _json()}},
        },
        "parameters": [
            _header(REQUEST_ID_HEADER, "^[A-Za-z0-9._-]{1,128}$", "Your own id; drawn if absent."),
            _header(
                TENANT_HEADER,
                TENANT_PATTERN,
                "On whose behalf: tenants share the denoisers alike. Believed as it stands, so have"
                " an ingress set it.",
            ),
        ],
    }


def _form() -> dict[str, Any]:
    picture = {
        "type": "string",
        "format": "binary",
        "contentMediaType": "application/octet-stream",
        "description": f"The picture: {ALLOWED_FORMATS}.",
    }
    control = picture | {
        "description": "The picture that the control of this name reads; as `image`, and all pictures"
        f" together weigh at most {PICTURES_AT_LIMIT} times what one may. Stretched to the result."
    }
    body = _body(IMAGE_FIELD, picture)
    listed = body["properties"]["controls"]
    body["properties"]["controls"] = {
        "type": "string",  # and no more: /docs offers a file for a text of another media type
        "title": "controls",
        "description": f"{listed['description']} A form sends the list as JSON text.",
    }
    body["properties"] = {
        name: field if name in (IMAGE_FIELD, PRIORITY_FIELD) else field | _EMPTY
        for name, field in body["properties"].items()
    }
    return body | {"patternProperties": {f"^{CONTROL_IMAGE_PREFIX}.+$": control}}


def _json() -> dict[str, Any]:
    picture = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "The picture's bytes in base64; a data: URL is accepted.",
    }
    body = _body(BASE64_FIELD, picture)
    body["properties"][CONTROLS_BASE64_FIELD] = {
        "type": "object",
        "additionalProperties": picture,
        "description": "Pictures that controls read, by the control's name; all pictures together"
        f" weigh at most {PICTURES_AT_LIMIT} times what one may. Stretched to the result.",
    }
    return body


def _body(name: str, picture: dict[str, Any]) -> dict[str, Any]:
    priority = {
        "type": "string",
        "enum": list(Priority),
        "default": Priority.INTERACTIVE,
        "description": "`interactive` where somebody waits for it, `batch` where it may take its time.",
    }
    return {
        "type": "object",
        "oneOf": [{"required": [name]}, {"required": [URL_FIELD]}],
        "properties": {
            name: picture,
            URL_FIELD: _URL,
            **parameter_schemas(),
            PRIORITY_FIELD: priority,
        },
        "additionalProperties": False,
    }


def _header(name: str, pattern: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "header", "description": description, "schema": schema}


_OF_JOBS = {404, 409}


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
                **_fidelity_headers(),
            },
            "content": {
                # One range, not three types: /docs sends it as Accept whatever format is asked for.
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                JSON: {"schema": {"$ref": _REF.format(model="UpscaleAnswer")}},
                EVENTS: {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE},
            },
        }
    }
    for status in sorted(set(STATUS.values()) - _OF_JOBS):
        titles = sorted(kind.title for kind, found in STATUS.items() if found == status)
        answers[status] = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(titles)}.",
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
        }
    return answers


def failures(kind: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route for the OpenAPI document: each status with the errors that lead to it."""
    problem = {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}
    told = {"content": {PROBLEM_MEDIA_TYPE: problem}} if kind is Problem else {"model": kind}
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        titles = sorted(error.title for error, code in STATUS.items() if code == status)
        said = f"{HTTPStatus(status).phrase}: {', '.join(titles)}."
        found[status] = {"description": said, **told}
    return found


def _fidelity_headers() -> dict[str, Any]:
    """Each measure's header, described as in the report itself; absent where nothing was measured."""
    told = {
        name: {"description": FidelityReport.model_fields[field].description, **_NUMBER}
        for name, field in FIDELITY_HEADERS.items()
    }
    warnings = "How many warnings the JSON answer's report has."
    return told | {WARNINGS_HEADER: {"description": warnings, **_WHOLE}}


UPSCALING = (400, 409, 413, 415, 422, 429, 500, 503, 504)
"""What upscaling a picture may end with."""
READING = (422, 500)
"""What looking something up may end with."""
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
