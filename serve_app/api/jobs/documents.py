"""The part of the OpenAPI document that FastAPI cannot infer: the bodies and answers of `POST /v1/jobs`."""

from __future__ import annotations

from typing import Any

from serve_app.api.body import JSON, MULTIPART
from serve_app.api.jobs.gathering import ZIP
from serve_app.api.jobs.schemas import JobAnswer
from serve_app.api.openapi import parameter_schemas, upscale_request, upscale_responses
from serve_app.contracts import Priority

_FILE = {"type": "string", "format": "binary"}
_WEBHOOK = {
    "type": "string",
    "format": "uri",
    "description": "Told when the job has ended, if the server has webhooks switched on.",
}


def submit_request() -> dict[str, Any]:
    """The extra of `POST /v1/jobs`: its three bodies and the headers that it reads."""
    shared = parameter_schemas() | {
        "priority": {"type": "string", "enum": list(Priority), "default": Priority.BATCH},
        "webhook_url": _WEBHOOK,
    }
    text = {"type": "string", "description": "JSON: a list of objects with `name` and parameters."}
    form = {
        "images": {
            "type": "array",
            "items": _FILE,
            "description": "The pictures; `image` as well.",
        },
        "archive": _FILE | {"description": "A ZIP of pictures."},
        "items": text,
    }
    urls = {"type": "array", "items": {"type": "string"}, "description": "Where pictures lie."}
    item = {
        "type": "object",
        "properties": {"image_url": {"type": "string"}, "name": {"type": "string"}},
    }
    prefix = {"type": "string", "description": "A folder below your imports, where jobs take them."}
    listed = {"type": "array", "items": item}
    spoken = {"image_urls": urls, "items": listed, "prefix": prefix}
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Submitted twice under one key, it is one job.",
        "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
    }
    controls = dict(shared)
    controls["controls"] = {"type": "string", "description": "A list as JSON text."}
    return {
        "requestBody": {
            "required": True,
            "content": {
                MULTIPART: {"schema": {"type": "object", "properties": form | controls}},
                ZIP: {"schema": _FILE},
                JSON: {"schema": {"type": "object", "properties": spoken | shared}},
            },
        },
        "parameters": [*upscale_request()["parameters"], key],
    }


def submit_responses() -> dict[int | str, dict[str, Any]]:
    """The answers of `POST /v1/jobs`."""
    answers = upscale_responses()
    answers[200] = {"model": JobAnswer, "description": "The job that was submitted before."}
    answers[202] = {"model": JobAnswer, "description": "The job, which is queued."}
    return answers
