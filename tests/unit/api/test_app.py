"""Routes through the whole application: answers, headers, ids and errors."""

import asyncio
import base64
import io
import json
import logging
from typing import Any

import httpx
import pytest
from PIL import Image

from serve_app import errors
from serve_app.api import create_api
from serve_app.api.problems import STATUS
from serve_app.contracts import UpscaleRequest, UpscaleResult
from serve_app.settings import ImageLimits, Settings
from serve_app.testing import FAKE_MODEL, FakeUpscaler
from tests.unit.api.conftest import PNG, problem

URL = "/v1/upscale"
FILE = {"image": ("photo.png", PNG)}


def size_of(encoded: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(encoded)).size


class TestPicture:
    async def test_the_picture_is_the_default_answer(self, http: httpx.AsyncClient) -> None:
        response = await http.post(URL, files=FILE)
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "image/png"
        assert size_of(response.content) == (32, 24)

    async def test_headers(self, http: httpx.AsyncClient) -> None:
        response = await http.post(URL, files=FILE, data={"scale": "2", "seed": "99"})
        assert response.headers["X-Seed"] == "99"
        assert response.headers["X-Model"] == "fake"
        assert response.headers["X-Tiles"] == "2"
        assert response.headers["Server-Timing"] == (
            "prepare;dur=12.3, denoise;dur=1500.0, finish;dur=250.0, total;dur=1762.3"
        )

    async def test_accept_chooses_the_format(self, http: httpx.AsyncClient) -> None:
        response = await http.post(URL, files=FILE, headers={"Accept": "image/webp"})
        assert response.headers["Content-Type"] == "image/webp"
        assert response.headers["Content-Disposition"] == 'inline; filename="photo-4x.webp"'

    @pytest.mark.parametrize(
        ("filename", "named"),
        [
            ("photo.jpeg", '"photo-4x.png"'),
            ("../../etc/passwd", '"passwd-4x.png"'),
            ("C:\\pictures\\a.b.png", '"a.b-4x.png"'),
            ("..", '"picture-4x.png"'),
            ('x";\r\ny.png', '"x_22__0D_0Ay-4x.png"'),
            ("日本.png", "\"__-4x.png\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC-4x.png"),
            ("n" * 300 + ".png", '"' + "n" * 80 + '-4x.png"'),
        ],
    )
    async def test_the_name_is_made_harmless(
        self, http: httpx.AsyncClient, filename: str, named: str
    ) -> None:
        response = await http.post(URL, files={"image": (filename, PNG)})
        sent = response.headers["Content-Disposition"]
        assert sent == f"inline; filename={named}"

    async def test_json_bodies_have_no_name(self, http: httpx.AsyncClient) -> None:
        response = await http.post(URL, json={"image_base64": base64.b64encode(PNG).decode()})
        assert response.headers["Content-Disposition"] == 'inline; filename="picture-4x.png"'


async def test_json_answer(http: httpx.AsyncClient) -> None:
    headers = {"Accept": "application/json", "X-Request-Id": "mine-1"}
    response = await http.post(URL, files=FILE, data={"scale": "3"}, headers=headers)
    found = response.json()
    assert size_of(base64.b64decode(found.pop("image_base64"))) == (24, 18)
    params = found.pop("params")
    assert (params["scale"], params["seed"], params["model"]) == (3, 7, "fake")
    assert (params["output_format"], params["steps"]) == ("png", FAKE_MODEL.defaults.steps)
    assert found == {
        "media_type": "image/png",
        "width": 24,
        "height": 18,
        "source_width": 8,
        "source_height": 6,
        "tiles": 2,
        "tiles_retried": 1,
        "timings_ms": {"prepare": 12.3, "denoise": 1500, "finish": 250},
        "request_id": "mine-1",
        "report": None,
        "frames": 1,
    }
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Seed"] == "7"
    assert response.headers["X-Request-Id"] == "mine-1"


async def test_an_answer_can_be_sent_again_as_a_request(
    http: httpx.AsyncClient, upscaler: FakeUpscaler
) -> None:
    body = {"image_base64": base64.b64encode(PNG).decode()}
    headers = {"Accept": "application/json"}
    first = (await http.post(URL, json=body, headers=headers)).json()
    again = await http.post(URL, json=body | first["params"], headers=headers)
    assert again.json()["params"] == first["params"]
    assert again.json()["image_base64"] == first["image_base64"]


async def test_nothing_acceptable(http: httpx.AsyncClient, upscaler: FakeUpscaler) -> None:
    response = await http.post(URL, files=FILE, headers={"Accept": "text/html"})
    problem(response, 406, "not-acceptable", "Accept")
    assert upscaler.requests == []


class TestRequestId:
    @pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 128])
    async def test_a_harmless_one_is_kept(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler, given: str
    ) -> None:
        response = await http.post(URL, files=FILE, headers={"X-Request-Id": given})
        assert response.headers.get_list("X-Request-Id") == [given]
        assert upscaler.requests[0].request_id == given

    @pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a/b", "ä".encode(), b"a\tb"])
    async def test_any_other_is_replaced(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler, given: Any
    ) -> None:
        response = await http.post(URL, files=FILE, headers={"X-Request-Id": given})
        drawn = response.headers["X-Request-Id"]
        assert len(drawn) == 32
        assert int(drawn, 16) >= 0
        assert upscaler.requests[0].request_id == drawn

    async def test_every_route_has_one(self, http: httpx.AsyncClient) -> None:
        for path in ("/", "/docs", "/openapi.json", "/v1/models", "/healthz", "/readyz", "/nope"):
            assert len((await http.get(path)).headers.get_list("X-Request-Id")) == 1, path

    async def test_a_proxy_may_stamp_it_instead(self, settings: Settings) -> None:
        app = create_api(FakeUpscaler(), settings, stamps_request_id=False)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://tessera"
        ) as http:
            response = await http.get("/nope", headers={"X-Request-Id": "mine"})
        assert "X-Request-Id" not in response.headers
        assert response.json()["request_id"] == "mine"


class TestErrors:
    @pytest.mark.parametrize("kind", sorted(STATUS, key=lambda kind: kind.code))
    async def test_every_error_of_the_tree(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler, kind: type[errors.TesseraError]
    ) -> None:
        upscaler.error = kind("What was wrong.", field="steps", allowed="1 to 2")
        response = await http.post(URL, files=FILE)
        document = problem(response, STATUS[kind], kind.code, "steps")
        assert document["title"] == kind.title
        assert document["allowed"] == "1 to 2"
        waits = STATUS[kind] in (429, 503)
        assert response.headers.get("Retry-After") == ("5" if waits else None)

    async def test_the_error_says_when_to_retry(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler
    ) -> None:
        upscaler.error = errors.Busy("All places are taken.", retry_after_s=12.01)
        response = await http.post(URL, files=FILE)
        assert problem(response, 429, "busy")["retry_after_s"] == 12.01
        assert response.headers["Retry-After"] == "13"

    @pytest.mark.parametrize("error", [TypeError("secret at /srv"), KeyError("secret")])
    async def test_the_unforeseen_is_logged_and_not_told(
        self,
        http: httpx.AsyncClient,
        upscaler: FakeUpscaler,
        error: Exception,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        upscaler.error = error
        response = await http.post(URL, files=FILE, headers={"X-Request-Id": "mine"})
        problem(response, 500, "internal-error")
        assert "secret" not in response.text
        (record,) = [found for found in caplog.records if found.levelno == logging.ERROR]
        assert vars(record)["action"] == "unexpected_error"
        assert vars(record)["request_id"] == "mine"
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    async def test_a_5xx_is_logged_by_its_code(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler, caplog: pytest.LogCaptureFixture
    ) -> None:
        upscaler.error = errors.TileFailed("Tile 3 failed.")
        await http.post(URL, files=FILE)
        (record,) = [found for found in caplog.records if found.name.startswith("serve_app.api")]
        assert (vars(record)["action"], vars(record)["code"]) == ("request_failed", "tile-failed")

    async def test_no_such_path(self, http: httpx.AsyncClient) -> None:
        problem(await http.get("/v2/upscale"), 404, "not-found")
        problem(await http.post("/v1/upscale/"), 404, "not-found")

    async def test_no_such_method(self, http: httpx.AsyncClient) -> None:
        response = await http.get(URL)
        assert problem(response, 405, "method-not-allowed")["allowed"] == "POST"
        assert response.headers["Allow"] == "POST"
        assert (await http.delete("/v1/models")).headers["Allow"] == "GET"


class TestOperations:
    async def test_health(self, http: httpx.AsyncClient) -> None:
        response = await http.get("/healthz")
        assert (response.status_code, response.json()) == (200, {"status": "ok"})

    async def test_readiness(self, http: httpx.AsyncClient, upscaler: FakeUpscaler) -> None:
        response = await http.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"status": "ready"})
        upscaler.is_ready = False
        response = await http.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "not ready"})

    async def test_models(self, http: httpx.AsyncClient, upscaler: FakeUpscaler) -> None:
        other = FAKE_MODEL.model_copy(update={"name": "other"})
        upscaler.model_infos.append(other)
        found = (await http.get("/v1/models")).json()
        assert found["models"] == [json.loads(m.model_dump_json()) for m in (FAKE_MODEL, other)]
        assert found["default"] == "fake"
        assert found["limits"] == ImageLimits(upload_bytes=50_000).model_dump()
        assert found["presets"].keys() == {"photo", "art", "text", "faithful", "creative"}
        assert found["presets"]["faithful"]["fidelity"] == 1

    async def test_the_root_leads_to_the_docs(self, http: httpx.AsyncClient) -> None:
        response = await http.get("/", follow_redirects=True)
        assert response.url.path == "/docs"
        assert "swagger-ui" in response.text


async def test_the_event_loop_is_free_while_a_picture_is_upscaled(settings: Settings) -> None:
    upscaler = FakeUpscaler(gate=asyncio.Event())
    transport = httpx.ASGITransport(create_api(upscaler, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://tessera") as http:
        posts = [asyncio.create_task(http.post(URL, files=FILE)) for _ in range(3)]
        while upscaler.running < 3:
            await asyncio.sleep(0)
        assert (await http.get("/healthz")).status_code == 200
        assert upscaler.gate is not None
        upscaler.gate.set()
        assert [(await post).status_code for post in posts] == [200, 200, 200]


async def test_a_result_without_measured_stages(settings: Settings) -> None:
    class Untimed(FakeUpscaler):
        async def upscale(self, request: UpscaleRequest, on_progress: Any = None) -> UpscaleResult:
            result = await super().upscale(request, on_progress)
            return result.model_copy(update={"timings_s": {"queue wait": 0.5, "total": 0.75}})

    transport = httpx.ASGITransport(create_api(Untimed(), settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://tessera") as http:
        response = await http.post(URL, files=FILE)
    assert response.headers["Server-Timing"] == "queue_wait;dur=500.0, total;dur=750.0"
