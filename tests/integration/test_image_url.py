"""`image_url` through the whole HTTP door, on a real server, from a real site on loopback."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api import create_api
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler, photo_like, png_bytes
from tests.unit.api.live import serving
from tests.unit.api.test_body import part
from tests.unit.fetch.site import NAME, Site, internet, listening, page, tls_for

pytestmark = pytest.mark.integration
URL = "/v1/upscale"
PNG = png_bytes(photo_like(6, 8, seed=1))


@pytest.fixture
def upscaler() -> FakeUpscaler:
    return FakeUpscaler()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[Site, Any]]:
    server, trust = tls_for(tmp_path, NAME)
    async with listening(tls=server) as found:
        found.pages["/photo.png"] = page(PNG)
        yield found, trust


@asynccontextmanager
async def door(
    upscaler: FakeUpscaler, site: tuple[Site, Any], **fetch: Any
) -> AsyncIterator[httpx.AsyncClient]:
    place, trust = site
    settings = Settings.parse(
        {
            "images": {"upload_bytes": 5000},
            "fetch": {"enabled": True, "ports": [place.port], "read_s": 2, **fetch},
        }
    )
    outside, _ = internet(["127.0.0.1"], trust=trust)
    app = create_api(upscaler, settings, internet=outside)
    async with (
        asyncio.timeout(20),
        serving(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        yield http


def where(site: tuple[Site, Any], path: str = "/photo.png") -> str:
    return f"https://{NAME}:{site[0].port}{path}"


async def test_json_and_form_fetch_the_picture(
    upscaler: FakeUpscaler, site: tuple[Site, Any]
) -> None:
    async with door(upscaler, site) as http:
        spoken = await http.post(URL, json={"image_url": where(site), "scale": 2})
        form = await http.post(URL, files={"image_url": (None, where(site)), "scale": (None, "2")})
        empty = part("image", b"", filename="") + part("image_url", where(site).encode())
        head = {"Content-Type": "multipart/form-data; boundary=X"}
        page_form = await http.post(URL, content=empty + b"--X--\r\n", headers=head)
    assert [found.status_code for found in (spoken, form, page_form)] == [200, 200, 200]
    assert [request.image for request in upscaler.requests] == [PNG, PNG, PNG]


async def test_one_way_only(upscaler: FakeUpscaler, site: tuple[Site, Any]) -> None:
    encoded = base64.b64encode(PNG).decode()
    async with door(upscaler, site) as http:
        both = await http.post(URL, json={"image_url": where(site), "image_base64": encoded})
        form = await http.post(URL, files={"image": ("a", PNG), "image_url": (None, where(site))})
        file = await http.post(URL, files={"image_url": ("a.txt", where(site).encode())})
        number = await http.post(URL, json={"image_url": 7})
        none = await http.post(URL, json={"image_url": None})
    found = [(answer.status_code, answer.json()["field"]) for answer in (both, form, file, number)]
    assert found == [(422, "image_url")] * 4
    assert (none.status_code, none.json()["field"]) == (422, "image_base64")
    assert "image_url" in none.json()["allowed"]
    assert upscaler.requests == []


async def test_off_unless_switched_on(upscaler: FakeUpscaler, site: tuple[Site, Any]) -> None:
    async with door(upscaler, site, enabled=False) as http:
        answer = await http.post(URL, json={"image_url": where(site)})
    assert (answer.status_code, answer.json()["field"]) == (422, "image_url")
    assert "switched off" in answer.json()["detail"]
    assert site[0].requests == []


@pytest.mark.parametrize(
    ("answer", "status", "code", "field"),
    [
        (page(b"", "404 Not Found"), 422, "invalid-parameter", "image_url"),
        (
            page(b"", "302 Found", Location="https://10.0.0.1/"),
            422,
            "invalid-parameter",
            "image_url",
        ),
        (page(b"x" * 5001), 413, "too-large", "image_url"),
        (page(b"<html>hello</html>"), 415, "unsupported-image", "image"),
        (page(b""), 415, "unsupported-image", "image"),
    ],
)
async def test_faults_are_the_callers(
    upscaler: FakeUpscaler,
    site: tuple[Site, Any],
    answer: bytes,
    status: int,
    code: str,
    field: str,
) -> None:
    site[0].pages["/x"] = answer
    async with door(upscaler, site) as http:
        found = await http.post(URL, json={"image_url": where(site, "/x")})
        streamed = await http.post(
            URL, json={"image_url": where(site, "/x")}, headers={"Accept": "text/event-stream"}
        )
    document = found.json()
    assert (found.status_code, document["field"]) == (status, field)
    assert document["type"] == f"urn:tessera:problem:{code}"
    assert "event: error" in streamed.text
    assert f'"status":{status}' in streamed.text


async def test_what_else_is_wrong_is_found_before_anything_is_fetched(
    upscaler: FakeUpscaler, site: tuple[Site, Any]
) -> None:
    async with door(upscaler, site) as http:
        steps = await http.post(URL, json={"image_url": where(site), "steps": 0})
        accept = await http.post(URL, json={"image_url": where(site)}, headers={"Accept": "x/y"})
    assert (steps.status_code, accept.status_code) == (422, 406)
    assert site[0].requests == []


async def test_leaving_ends_the_fetch(upscaler: FakeUpscaler, site: tuple[Site, Any]) -> None:
    place = site[0]
    place.pages["/slow"] = [page(b"", Content_Length="5000"), *[b"x"] * 5000]
    place.pause_s = 0.01
    async with door(upscaler, site) as http:
        asking = asyncio.create_task(http.post(URL, json={"image_url": where(site, "/slow")}))
        while not place.requests:
            await asyncio.sleep(0.01)
        asking.cancel()
        await place.gone.wait()
    assert upscaler.requests == []
