"""What the document says of the dialects is what they answer."""

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.unit.api.dialects.conftest import Counter

PATHS = ("/sdapi/v1/", "/v1/images/", "/v1/predictions", "/v1/files", "/v1/models/")


@pytest.fixture
async def document(counter: Counter) -> Any:
    async with httpx.AsyncClient(base_url=counter.url) as http:
        return (await http.get("/openapi.json")).json()


def operations(document: Any) -> list[Any]:
    return [
        operation
        for path, found in document["paths"].items()
        if path.startswith(PATHS)
        for operation in found.values()
    ]


async def test_every_error_has_its_shape(document: Any) -> None:
    found = operations(document)
    assert len(found) == 23
    shapes = set()
    for operation in found:
        assert "HTTPValidationError" not in str(operation)
        for status, answer in operation["responses"].items():
            if not status.startswith("2"):
                (content,) = answer["content"].values()
                shapes.add(content["schema"]["$ref"].rsplit("/", 1)[1])
    assert shapes == {"SdError", "ErrorAnswer", "Problem"}
    assert shapes <= document["components"]["schemas"].keys()


async def test_every_body_is_a_valid_schema(document: Any) -> None:
    bodies = [one["requestBody"] for one in operations(document) if "requestBody" in one]
    assert len(bodies) == 7
    for body in bodies:
        for content in body["content"].values():
            Draft202012Validator.check_schema(content["schema"])


async def test_a_failure_that_fits_the_document(counter: Counter, document: Any) -> None:
    async with httpx.AsyncClient(base_url=counter.url) as http:
        answer = await http.post("/sdapi/v1/extra-batch-images", json={"imageList": []})
    said = document["paths"]["/sdapi/v1/extra-batch-images"]["post"]["responses"]["422"]
    schema = said["content"]["application/json"]["schema"]
    whole = schema | {"components": document["components"]}
    Draft202012Validator(whole).validate(answer.json())
    assert answer.status_code == 422
