"""Stable Diffusion web UI's dialect, driven by `webuiapi`."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import webuiapi
from PIL import Image

from serve_app.api import create_api
from serve_app.contracts import Progress
from serve_app.errors import Busy, GarbageTile
from serve_app.testing import FakeUpscaler
from tests.unit.api.dialects.conftest import PNG, PREVIEW, Counter, settings_of

PICTURE = Image.open(io.BytesIO(PNG))
SINGLE = "/sdapi/v1/extra-single-image"
BODY = {"image": base64.b64encode(PNG).decode(), "upscaling_resize": 2}


@pytest.fixture
async def client(counter: Counter) -> webuiapi.WebUIApi:
    return await asyncio.to_thread(webuiapi.WebUIApi, baseurl=f"{counter.url}/sdapi/v1")


@pytest.fixture
async def http(counter: Counter) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=counter.url) as found:
        yield found


async def test_a_picture_is_upscaled_by_a_factor(
    client: webuiapi.WebUIApi, counter: Counter
) -> None:
    made = await asyncio.to_thread(client.extra_single_image, PICTURE, upscaling_resize=3)
    assert made.image.size == (24, 18)
    assert made.info == "<p>24 x 18 px</p>"
    assert counter.upscaler.requests[0].params.scale == 3


async def test_a_picture_fits_into_a_size(client: webuiapi.WebUIApi, counter: Counter) -> None:
    ask = {"resize_mode": 1, "upscaling_resize_w": 40, "upscaling_resize_h": 30}
    await asyncio.to_thread(client.extra_single_image, PICTURE, upscaler_1="fake", **ask)
    params = counter.upscaler.requests[0].params
    assert (params.width, params.height, params.scale, params.model) == (40, 30, None, "fake")


async def test_a_batch_comes_back_in_order(client: webuiapi.WebUIApi, counter: Counter) -> None:
    other = PICTURE.resize((5, 7))
    made = await asyncio.to_thread(client.extra_batch_images, [PICTURE, other])
    assert [image.size for image in made.images] == [(16, 12), (10, 14)]
    assert len(counter.upscaler.requests) == 2


async def test_progress_is_real_and_interruption_ends_the_work(
    client: webuiapi.WebUIApi, counter: Counter
) -> None:
    counter.go_on.clear()
    asked = asyncio.create_task(asyncio.to_thread(client.extra_single_image, PICTURE))
    await counter.seen.wait()
    while (told := await asyncio.to_thread(client.get_progress))["current_image"] is None:
        await asyncio.sleep(0.01)
    assert base64.b64decode(told["current_image"]) == PREVIEW
    assert told["progress"] == 0.5
    assert told["eta_relative"] > 0
    state = told["state"]
    assert (state["job_count"], state["sampling_step"], state["sampling_steps"]) == (1, 1, 2)
    assert await asyncio.to_thread(client.interrupt) == {}
    with pytest.raises(RuntimeError) as caught:
        await asked
    assert caught.value.args[0] == 409
    while (await counter.store.usage("default")).jobs:
        await asyncio.sleep(0.01)
    assert counter.upscaler.requests == []
    told = await asyncio.to_thread(client.get_progress)
    assert (told["progress"], told["state"]["job_count"]) == (0, 0)
    await asyncio.to_thread(client.util_wait_for_ready)


async def test_another_tenants_requests_are_neither_seen_nor_ended(
    counter: Counter, http: httpx.AsyncClient
) -> None:
    counter.go_on.clear()
    asked = asyncio.create_task(http.post(SINGLE, json=BODY, headers={"X-Tenant-Id": "a"}))
    await counter.seen.wait()
    other = {"X-Tenant-Id": "b"}
    told = (await http.get("/sdapi/v1/progress", headers=other)).json()
    assert told["state"]["job_count"] == 0
    await http.post("/sdapi/v1/interrupt", headers=other)
    counter.go_on.set()
    assert (await asked).status_code == 200


async def test_what_clients_look_up(client: webuiapi.WebUIApi) -> None:
    def look() -> list[Any]:
        return [
            [one["name"] for one in client.get_upscalers()],
            client.util_get_model_names(),
            client.util_get_sampler_names(),
            client.util_get_current_model(),
            client.get_scripts(),
            client.get_cmd_flags(),
            client.set_options({"sd_model_checkpoint": "fake", "CLIP_stop_at_last_layers": 2}),
        ]

    found = await asyncio.to_thread(look)
    assert found[:4] == [["None", "fake"], ["fake"], ["Euler"], "fake"]
    assert found[4:] == [{"txt2img": [], "img2img": []}, {}, {}]


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"image": "?"}, 422, "image"),
        ({"image": base64.b64encode(b"no picture").decode()}, 415, "image"),
        ({"upscaling_resize": 9}, 422, "upscaling_resize"),
        ({"upscaler_1": "R-ESRGAN 4x+"}, 422, "R-ESRGAN"),
        ({"resize_mode": 2}, 422, "resize_mode"),
    ],
)
async def test_errors_are_in_the_dialects_shape(
    http: httpx.AsyncClient, change: dict[str, Any], status: int, said: str
) -> None:
    answer = await http.post(SINGLE, json=BODY | change)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "detail", "body", "errors"}
    assert said in answer.json()["detail"]


async def test_a_picture_that_fails_in_its_job_says_why(
    counter: Counter, http: httpx.AsyncClient
) -> None:
    counter.upscaler.error = GarbageTile("nothing of its source")
    answer = await http.post(SINGLE, json=BODY)
    assert (answer.status_code, answer.json()["error"]) == (500, "Garbage tile")


async def test_a_body_of_another_kind_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.post(SINGLE, content=b"x")).status_code == 415


async def test_it_works_without_jobs_and_tells_steps() -> None:
    gate = asyncio.Event()
    half = Progress(stage="denoise", tiles_done=0, tiles_total=2, steps_done=4, steps_total=16)
    upscaler = FakeUpscaler(progress=[half], gate=gate)
    transport = httpx.ASGITransport(create_api(upscaler, settings_of()))
    async with httpx.AsyncClient(transport=transport, base_url="http://tessera") as http:
        asked = asyncio.create_task(http.post(SINGLE, json=BODY))
        await upscaler.started.wait()
        told = (await http.get("/sdapi/v1/progress")).json()
        assert (told["progress"], told["current_image"]) == (0.25, None)
        gate.set()
        assert (await asked).status_code == 200
        upscaler.error = Busy("full", retry_after_s=2)
        busy = await http.post(SINGLE, json=BODY)
        assert (busy.status_code, busy.headers["Retry-After"]) == (429, "2")


async def test_a_dialect_that_is_switched_off_is_not_there() -> None:
    off = settings_of(requests={"dialects": ["openai"]})
    transport = httpx.ASGITransport(create_api(FakeUpscaler(), off))
    async with httpx.AsyncClient(transport=transport, base_url="http://tessera") as http:
        assert (await http.post(SINGLE, json=BODY)).status_code == 404
        assert (await http.get("/v1/models/fake")).status_code == 200
