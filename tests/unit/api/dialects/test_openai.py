"""OpenAI's dialect, driven by `openai`."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from serve_app.api import create_api
from serve_app.contracts import Priority
from serve_app.errors import Busy
from serve_app.testing import FAKE_MODEL, FakeUpscaler
from tests.unit.api.dialects.conftest import PNG, PREVIEW, Counter, settings_of


def edit(**given: Any) -> dict[str, Any]:
    return {"image": ("photo.png", PNG), "prompt": "a photo"} | given


@pytest.fixture
async def client(counter: Counter) -> AsyncIterator[openai.AsyncOpenAI]:
    base = f"{counter.url}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0) as found:
        yield found


def decoded(text: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text or "")))


async def test_a_picture_is_upscaled(client: openai.AsyncOpenAI, counter: Counter) -> None:
    made = await client.images.edit(**edit(size="auto", quality="high", user="me"))
    assert made.data is not None
    image = decoded(made.data[0].b64_json)
    assert (image.format, image.size) == ("PNG", (32, 24))
    assert (made.size, made.output_format, made.created > 0) == ("32x24", "png", True)
    (asked,) = counter.upscaler.requests
    assert (asked.params.prompt, asked.params.scale) == (None, None)


async def test_sizes_formats_and_our_own_parameters_are_taken(
    client: openai.AsyncOpenAI, counter: Counter
) -> None:
    own = {"seed": "7", "fidelity": "0.5"}
    given = edit(size="40x30", output_format="jpeg", output_compression=80, model="fake")
    made = await client.images.edit(**given, extra_body=own)
    assert made.output_format == "jpeg"
    params = counter.upscaler.requests[0].params
    assert (params.width, params.height, params.quality) == (40, 30, 80)
    assert (params.seed, params.fidelity) == (7, 0.5)


async def test_a_list_of_one_picture_and_several_results(
    client: openai.AsyncOpenAI, counter: Counter
) -> None:
    made = await client.images.edit(**edit(image=[("photo.png", PNG)], n=2))
    assert made.data is not None
    assert [decoded(one.b64_json).size for one in made.data] == [(32, 24)] * 2
    assert len({asked.request_id for asked in counter.upscaler.requests}) == 2


async def test_a_result_by_its_address(client: openai.AsyncOpenAI) -> None:
    made = await client.images.edit(**edit(response_format="url"))
    assert made.data is not None
    async with httpx.AsyncClient() as http:
        got = await http.get(made.data[0].url or "")
    assert Image.open(io.BytesIO(got.content)).size == (32, 24)


async def test_a_stream_tells_partial_pictures_and_the_result(
    client: openai.AsyncOpenAI, counter: Counter
) -> None:
    counter.go_on.clear()
    stream = await client.images.edit(**edit(stream=True, partial_images=2))
    events = []
    async for event in stream:
        events.append(event)
        counter.go_on.set()
    partial, completed = events
    assert partial.type == "image_edit.partial_image"
    assert base64.b64decode(partial.b64_json) == PREVIEW
    assert (partial.partial_image_index, partial.output_format) == (0, "jpeg")
    assert completed.type == "image_edit.completed"
    assert (decoded(completed.b64_json).size, completed.size) == ((32, 24), "32x24")
    assert completed.usage.total_tokens == 0
    assert counter.upscaler.requests[0].priority is Priority.INTERACTIVE


async def test_leaving_a_stream_ends_the_work(client: openai.AsyncOpenAI, counter: Counter) -> None:
    counter.go_on.clear()
    stream = await client.images.edit(**edit(stream=True, partial_images=1))
    async for _ in stream:
        await stream.close()
        break
    while (await counter.store.usage("default")).jobs:
        await asyncio.sleep(0.01)
    assert counter.upscaler.requests == []


async def test_leaving_ends_the_work_without_a_stream(
    client: openai.AsyncOpenAI, counter: Counter
) -> None:
    counter.upscaler.gate = asyncio.Event()
    asked = asyncio.create_task(client.images.edit(**edit()))
    await counter.upscaler.started.wait()
    asked.cancel()
    await counter.upscaler.cancelled.wait()
    assert counter.upscaler.running == 0


async def test_a_stream_without_partial_pictures(client: openai.AsyncOpenAI) -> None:
    stream = await client.images.edit(**edit(stream=True))
    assert [event.type async for event in stream] == ["image_edit.completed"]


async def test_an_error_within_a_stream(client: openai.AsyncOpenAI, counter: Counter) -> None:
    counter.upscaler.error = Busy("full")
    with pytest.raises(openai.APIError, match="full"):
        async for _ in await client.images.edit(**edit(stream=True)):
            pass


async def test_the_unforeseen_is_answered_in_the_dialects_shape(
    client: openai.AsyncOpenAI, counter: Counter
) -> None:
    counter.upscaler.error = ValueError("secret")
    with pytest.raises(openai.InternalServerError) as caught:
        await client.images.edit(**edit())
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("change", "kind", "param"),
    [
        ({"size": "wide"}, openai.UnprocessableEntityError, "size"),
        ({"n": 11}, openai.UnprocessableEntityError, "n"),
        ({"response_format": "tiff"}, openai.UnprocessableEntityError, "response_format"),
        ({"model": "gpt-image-2"}, openai.UnprocessableEntityError, "model"),
        ({"mask": ("mask.png", PNG)}, openai.UnprocessableEntityError, "mask"),
        ({"image": [("a.png", PNG)] * 2}, openai.UnprocessableEntityError, "image"),
        ({"image": ("a.png", b"no picture")}, openai.APIStatusError, "image"),
        ({"extra_body": {"nonsense": "1"}}, openai.UnprocessableEntityError, "nonsense"),
    ],
)
async def test_errors_are_the_clients_own(
    client: openai.AsyncOpenAI, change: Any, kind: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(kind) as caught:
        await client.images.edit(**edit(**change))
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
    assert caught.value.request_id


async def test_busy_is_a_rate_limit(client: openai.AsyncOpenAI, counter: Counter) -> None:
    counter.upscaler.error = Busy("full", retry_after_s=3)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.images.edit(**edit())
    assert caught.value.response.headers["Retry-After"] == "3"


async def test_models_are_listed_and_found(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["fake"]
    assert (await client.models.retrieve("fake")).object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("gpt")
    assert caught.value.code == "not-found"


async def test_a_prompt_counts_where_the_model_reads_it() -> None:
    model = FAKE_MODEL.model_copy(update={"takes_prompt": True})
    upscaler = FakeUpscaler(models=[model])
    transport = httpx.ASGITransport(create_api(upscaler, settings_of()))
    files = {"image": ("a.png", PNG)}
    async with httpx.AsyncClient(transport=transport, base_url="http://tessera") as http:
        sent = {"prompt": "a cat"}
        assert (await http.post("/v1/images/edits", files=files, data=sent)).status_code == 200
        assert upscaler.requests[0].params.prompt == "a cat"
        sent = {"response_format": "url"}
        kept = await http.post("/v1/images/edits", files=files, data=sent)
        assert kept.json()["error"]["param"] == "response_format"
        bare = await http.post("/v1/images/edits", content=b"x")
        assert bare.status_code == 415
        assert set(bare.json()) == {"error"}
