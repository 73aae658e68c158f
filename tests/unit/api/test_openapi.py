"""The document that /docs is made from."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from serve_app.contracts import OutputFormat, UpscaleParams
from serve_app.testing import FakeUpscaler
from tests.unit.api.conftest import PNG


@pytest.fixture
async def document(http: httpx.AsyncClient) -> Any:
    return (await http.get("/openapi.json")).json()


def nodes(value: Any) -> Iterator[Any]:
    yield value
    for child in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from nodes(child)


def operation(document: Any) -> Any:
    return document["paths"]["/v1/upscale"]["post"]


def test_every_reference_leads_somewhere(document: Any) -> None:
    found = [node["$ref"] for node in nodes(document) if isinstance(node, dict) and "$ref" in node]
    assert len(found) > 10
    for reference in found:
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_every_schema_is_valid(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for body in operation(document)["requestBody"]["content"].values():
        Draft202012Validator.check_schema(body["schema"])


def test_every_parameter_is_in_both_bodies(document: Any) -> None:
    bodies = operation(document)["requestBody"]["content"]
    for kind, picture in (("multipart/form-data", "image"), ("application/json", "image_base64")):
        schema = bodies[kind]["schema"]
        expected = {picture, "image_url", "priority", *UpscaleParams.model_fields}
        assert set(schema["properties"]) - {"control_images_base64"} == expected
        assert schema["oneOf"] == [{"required": [picture]}, {"required": ["image_url"]}]
        assert all(field["description"] for field in schema["properties"].values())
    form = bodies["multipart/form-data"]["schema"]["properties"]
    assert form["image"]["format"] == "binary"
    assert (form["steps"]["type"], form["steps"]["minimum"], form["steps"]["maximum"]) == (
        "integer",
        1,
        100,
    )
    assert form["strength"]["exclusiveMinimum"] == 0
    assert form["output_format"]["enum"] == list(OutputFormat)
    assert (form["prompt"]["type"], form["prompt"]["maxLength"]) == ("string", 4000)
    numbers = [field for field in form.values() if field["type"] in ("integer", "number")]
    assert len(numbers) == 17
    assert all("maximum" in field for field in numbers)


def test_bodies_with_controls_fit_their_schemas(document: Any) -> None:
    bodies = operation(document)["requestBody"]["content"]
    components = {"components": document["components"]}
    controls = [{"name": "canny", "scale": 0.5}]
    sent = {
        "image_base64": "aGk=",
        "controls": controls,
        "control_images_base64": {"pose": "aGk="},
        "priority": "batch",
    }
    spoken = Draft202012Validator(bodies["application/json"]["schema"] | components)
    assert spoken.is_valid(sent)
    assert not spoken.is_valid(sent | {"controls": controls * 9})
    assert not spoken.is_valid(sent | {"controls": [{"scale": 0.5}]})
    assert not spoken.is_valid(sent | {"control_image_pose": "aGk="})
    form = bodies["multipart/form-data"]["schema"]
    filled = {"image": "", "controls": json.dumps(controls), "control_image_pose": ""}
    assert Draft202012Validator(form | components).is_valid(filled)
    assert not Draft202012Validator(form | components).is_valid(filled | {"pose": ""})
    assert form["properties"]["controls"]["type"] == "string"
    assert "contentMediaType" not in form["properties"]["controls"]  # /docs would offer a file


def test_the_form_of_docs_is_empty_until_it_is_filled(document: Any) -> None:
    form = operation(document)["requestBody"]["content"]["multipart/form-data"]["schema"]
    own = {name for name, field in form["properties"].items() if field.get("example") != ""}
    assert own == {"image", "priority"}


def test_the_headers_that_are_read_are_listed(document: Any) -> None:
    names = {header["name"] for header in operation(document)["parameters"]}
    assert names == {"X-Request-Id", "X-Tenant-Id"}


def test_every_answer_is_described(document: Any) -> None:
    answers = operation(document)["responses"]
    expected = {"200", "400", "406", "413", "415", "422", "429", "500", "503", "504"}
    assert set(answers) == expected
    assert next(iter(answers["200"]["content"])) == "image/*"
    assert set(answers["200"]["content"]) == {"image/*", "application/json", "text/event-stream"}
    for status in expected - {"200"}:
        assert set(answers[status]["content"]) == {"application/problem+json"}


async def test_real_answers_match_their_schemas(
    http: httpx.AsyncClient, upscaler: FakeUpscaler, document: Any
) -> None:
    def check(name: str, instance: Any) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        Draft202012Validator(schema).validate(instance)

    headers = {"Accept": "application/json"}
    file = {"image": ("photo.png", PNG)}
    check("UpscaleAnswer", (await http.post("/v1/upscale", files=file, headers=headers)).json())
    check("Problem", (await http.post("/v1/upscale", files=file, data={"steps": "0"})).json())
    check("ModelList", (await http.get("/v1/models")).json())
    check("Readiness", (await http.get("/readyz")).json())


def test_examples_match_their_schemas(document: Any) -> None:
    for name in ("UpscaleAnswer", "Problem"):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        example = document["components"]["schemas"][name]["example"]
        Draft202012Validator(schema).validate(example)


async def test_what_the_docs_page_sends_works(http: httpx.AsyncClient) -> None:
    """The page asks for the first listed type, and sends fields left empty."""
    response = await http.post(
        "/v1/upscale",
        files={"image": ("photo.png", PNG, "image/png")},
        data={"scale": "2", "steps": "", "prompt": "", "output_format": "jpeg"},
        headers={"Accept": "image/*"},
    )
    assert (response.status_code, response.headers["Content-Type"]) == (200, "image/jpeg")


async def test_asking_twice_gives_the_same(http: httpx.AsyncClient, document: Any) -> None:
    assert (await http.get("/openapi.json")).json() == document
