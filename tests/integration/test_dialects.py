"""Other tools' own clients against the whole graph with the embedded model: upscale, progress, cancel."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
import replicate
import webuiapi
from PIL import Image

from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration

SMALL = png_bytes(photo_like(40, 60, seed=1))
LARGE = png_bytes(photo_like(240, 320, seed=2))
PATIENCE_S = 60


def eventually(look: Callable[[], Any]) -> Any:
    """What `look` gives once it gives something."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("nothing came of it")


def image_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


class TestWebUi:
    @pytest.fixture
    def client(self, application: Application) -> webuiapi.WebUIApi:
        found = webuiapi.WebUIApi(baseurl=f"{application.url}/sdapi/v1")
        found.session.headers["X-Tenant-Id"] = "webui"
        return found

    def test_upscale(self, client: webuiapi.WebUIApi) -> None:
        made = client.extra_single_image(image_of(SMALL), upscaling_resize=2)
        assert made.image.size == (120, 80)

    def test_progress_and_interrupt(self, client: webuiapi.WebUIApi) -> None:
        ended: list[Any] = []

        def ask() -> None:
            try:
                ended.append(client.extra_single_image(image_of(LARGE), upscaling_resize=8))
            except RuntimeError as error:
                ended.append(error.args[0])

        asking = threading.Thread(target=ask)
        asking.start()
        told = eventually(lambda: (p := client.get_progress())["current_image"] and p)
        assert 0 < told["progress"] < 1
        assert image_of(base64.b64decode(told["current_image"])).size == (320, 240)
        client.interrupt()
        asking.join(PATIENCE_S)
        assert ended == [409]
        assert client.get_progress()["state"]["job_count"] == 0


class TestOpenAi:
    @pytest.fixture
    def client(self, application: Application) -> openai.OpenAI:
        headers = {"X-Tenant-Id": "openai"}
        base = f"{application.url}/v1"
        return openai.OpenAI(base_url=base, api_key="none", default_headers=headers)

    def test_upscale(self, client: openai.OpenAI) -> None:
        made = client.images.edit(image=("a.png", SMALL), prompt="", size="120x80")
        assert made.data is not None
        assert image_of(base64.b64decode(made.data[0].b64_json or "")).size == (120, 80)

    def test_a_stream_with_partial_pictures_and_an_end_before_its_end(
        self, client: openai.OpenAI, application: Application
    ) -> None:
        given: dict[str, Any] = {"image": ("a.png", LARGE), "prompt": "", "stream": True}
        with client.images.edit(**given, partial_images=1, extra_body={"scale": "8"}) as stream:
            event = next(iter(stream))
        assert event.type == "image_edit.partial_image"
        assert image_of(base64.b64decode(event.b64_json)).size == (320, 240)
        with application.client() as http:
            http.headers["X-Tenant-Id"] = "openai"
            eventually(lambda: http.get("/v1/jobs").json()["jobs"][0]["status"] == "cancelled")


class TestReplicate:
    @pytest.fixture
    def client(self, application: Application) -> replicate.Client:
        return replicate.Client(
            api_token="none", base_url=application.url, headers={"X-Tenant-Id": "replicate"}
        )

    def test_upscale(self, client: replicate.Client) -> None:
        given = {"image": io.BytesIO(SMALL), "scale": 2}
        url = client.run("tessera/mini", input=given)
        data = httpx.get(url, headers={"X-Tenant-Id": "replicate"}).content
        assert image_of(data).size == (120, 80)

    def test_progress_and_cancel(self, client: replicate.Client) -> None:
        given = {"image": io.BytesIO(LARGE), "scale": 8}
        found = client.predictions.create("mini", given)

        def progress() -> Any:
            found.reload()
            return found.progress is not None and found.progress.current and found.progress

        told = eventually(progress)
        assert 0 < told.current < told.total
        found.cancel()
        found.wait()
        assert found.status == "canceled"
