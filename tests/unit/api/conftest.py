from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from serve_app.api import create_api
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler, photo_like, png_bytes

Post = Callable[..., Any]
PNG = png_bytes(photo_like(6, 8, seed=1))


@pytest.fixture
def upscaler() -> FakeUpscaler:
    return FakeUpscaler()


@pytest.fixture
def settings() -> Settings:
    return Settings.parse({"images": {"upload_bytes": 50_000}})


@pytest.fixture
async def http(upscaler: FakeUpscaler, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_api(upscaler, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://tessera") as client:
        yield client


def problem(response: httpx.Response, status: int, code: str, field: str | None = None) -> Any:
    """Checks all that every problem document must have, and gives the document."""
    document = response.json()
    assert response.status_code == status == document["status"], document
    assert response.headers["Content-Type"] == "application/problem+json"
    assert document["type"] == f"urn:tessera:problem:{code}"
    assert document["request_id"] == response.headers["X-Request-Id"]
    assert document.get("field") == field
    assert document["title"]
    assert document["detail"]
    return document
