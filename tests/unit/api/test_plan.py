"""`POST /v1/plan`."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from serve_app.jobs.blobs import Blobs
from serve_app.jobs.store import Store
from tests.unit.api.conftest import PNG, problem
from tests.unit.api.jobs.conftest import Door, settings_of

URL = "/v1/plan"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    store = await Store.open(f"sqlite:///{tmp_path}/jobs.db")
    yield Door(store, Blobs(str(tmp_path / "blobs")), settings_of())
    await store.close()


async def test_without_jobs(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, files={"image": ("a.png", PNG)}, data={"width": "64"})
    assert response.status_code == 200
    assert response.json() == {
        "model": "fake",
        "source_width": 8,
        "source_height": 6,
        "width": 64,
        "height": 48,
        "frames": 1,
        "tiles": 1,
        "steps": 28,
        "tile_tflop": None,
        "tflop": None,
        "estimated_s": None,
        "queue_position": None,
    }


async def test_with_jobs(door: Door) -> None:
    await door.submitted()
    await door.work(1)
    response = await door.http.post(URL, files={"image": ("a.png", PNG)})
    found = response.json()
    assert found["queue_position"] == 2
    assert found["estimated_s"] == 0.8  # 1.5 s for two tiles; this is one
    assert len(door.upscaler.requests) == 1  # the plan asked for nothing


async def test_refused(http: httpx.AsyncClient) -> None:
    file = {"image": ("a.png", PNG)}
    problem(await http.post(URL), 415, "unsupported-media-type", "Content-Type")
    problem(await http.post(URL, files={"image": ("a", b"x")}), 415, "unsupported-image", "image")
    problem(
        await http.post(URL, files=file, data={"steps": "0"}), 422, "invalid-parameter", "steps"
    )
    problem(
        await http.post(URL, files=file, data={"model": "x"}), 422, "invalid-parameter", "model"
    )
    large = {"width": "65535"}
    problem(await http.post(URL, files=file, data=large), 422, "invalid-parameter", "width")
    problem(
        await http.post(URL, json={"image_url": "https://a.example"}),
        422,
        "invalid-parameter",
        "image_url",
    )
