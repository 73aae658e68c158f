"""Several controls at once on a FLUX-shaped model with a ControlNet-Union, from the HTTP door to the pixels."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from PIL import Image
from ray import serve

from serve_app.api import create_api
from serve_app.app import build_app
from serve_app.contracts import UpscaleParams, Upscaler, UpscaleRequest
from serve_app.errors import InvalidParameter
from serve_app.local import local_upscaler
from serve_app.settings import Settings
from serve_app.testing import photo_like, png_bytes
from tests.tiny_flux import build_tiny_flux
from tests.unit.controls.tiny_depth import build_tiny_depth

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHOTO = png_bytes(photo_like(20, 30))
POSE = png_bytes(photo_like(7, 50, seed=3))
OTHER_POSE = png_bytes(photo_like(7, 50, seed=4))
CANNY = {"name": "canny", "scale": 2}
POSE_CONTROL = {"name": "pose", "scale": 2}

# Mean difference of two results, levels of 255. Repeats differ by what a batch of other company rounds
# differently; with these random weights another picture for the same control makes 0.02, a control at all 3.
SAME, OTHER_PICTURE, OTHER_CONTROLS = 0.002, 0.01, 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tiny-union")
    build_tiny_depth(found / "depth_estimator")
    build_tiny_flux(found, takes_prompt=False, with_text_encoders=False, with_union=True)
    description = found / "tessera.json"
    told = json.loads(description.read_text()) | {"backprojection_rounds": 0}  # the bare network
    description.write_text(json.dumps(told))
    return found


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    engine = {"device": "cpu", "threads": 1}
    return Settings.parse({"model": str(folder), "engine": engine, "jobs": {"enabled": False}})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upscaler(settings: Settings) -> AsyncIterator[Upscaler]:
    async with local_upscaler(settings) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(upscaler: Upscaler, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_api(upscaler, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://tessera/") as client:
        yield client


async def run(upscaler: Upscaler, *controls: dict[str, Any], **pictures: bytes) -> npt.NDArray[Any]:
    """A picture of several tiles; the same seed each time."""
    params = UpscaleParams(scale=2, seed=1, steps=4, controls=controls)
    asked = UpscaleRequest(image=PHOTO, control_images=pictures, params=params, request_id="r")
    result = await upscaler.upscale(asked)
    assert result.tiles > 1
    assert [control.name for control in result.params.controls] == [c["name"] for c in controls]
    return pixels(result.image)


def pixels(image: bytes) -> npt.NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(image))).astype(int)


def distance(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    return float(np.abs(left - right).mean())


async def test_each_control_changes_the_result_in_its_own_way(upscaler: Upscaler):
    plain = await run(upscaler)
    alone = [
        await run(upscaler, CANNY),
        await run(upscaler, {"name": "depth", "scale": 2}),
        await run(upscaler, POSE_CONTROL, pose=POSE),
        await run(upscaler, POSE_CONTROL, pose=OTHER_POSE),
    ]
    both = await run(upscaler, CANNY, POSE_CONTROL, pose=POSE)
    assert all(distance(plain, one) > OTHER_CONTROLS for one in [*alone, both])
    assert all(distance(both, one) > OTHER_CONTROLS for one in alone)
    for one, other in combinations(alone, 2):
        assert distance(one, other) > OTHER_PICTURE


async def test_scale_0_is_the_same_as_absent(upscaler: Upscaler):
    plain = await run(upscaler)
    assert distance(await run(upscaler, CANNY | {"scale": 0}), plain) < SAME


async def test_the_window_is_honoured(upscaler: Upscaler):
    windows = [{}, {"end": 0.5}, {"start": 0.5}]
    results = [await run(upscaler), *[await run(upscaler, CANNY | window) for window in windows]]
    for one, other in combinations(results, 2):
        assert distance(one, other) > OTHER_CONTROLS
    explicit = await run(upscaler, CANNY | {"start": 0, "end": 1})
    assert distance(explicit, results[1]) < SAME


async def test_the_order_of_controls_does_not_matter(upscaler: Upscaler):
    one = await run(upscaler, CANNY, POSE_CONTROL, pose=POSE)
    other = await run(upscaler, POSE_CONTROL, CANNY, pose=POSE)
    assert distance(one, other) < SAME


async def test_a_control_that_is_not_offered_is_refused_with_the_list(upscaler: Upscaler):
    with pytest.raises(InvalidParameter) as caught:
        await run(upscaler, {"name": "scribble"})
    assert caught.value.field == "controls"
    assert "canny, depth, pose" in (caught.value.allowed or "")


# Through HTTP


async def test_the_catalogue_tells_the_controls(http: httpx.AsyncClient):
    (model,) = (await http.get("v1/models")).json()["models"]
    assert list(model["controls"]) == ["upscale", "canny", "depth", "pose"]
    pose = model["controls"]["pose"]
    assert (pose["picture"], pose["scale"], pose["start"], pose["end"]) == ("given", 0.5, 0, 1)


CONTROLS = [CANNY, {"name": "depth", "scale": 2}, POSE_CONTROL]
COMMON = {"scale": 2, "seed": 1, "steps": 4}


async def post_form(http: httpx.AsyncClient) -> httpx.Response:
    files = {"image": ("a.png", PHOTO), "control_image_pose": ("p.png", POSE)}
    data = {name: str(value) for name, value in COMMON.items()}
    return await http.post(
        "v1/upscale", files=files, data=data | {"controls": json.dumps(CONTROLS)}
    )


async def test_both_bodies_give_the_in_process_result(upscaler: Upscaler, http: httpx.AsyncClient):
    expected = await run(upscaler, *CONTROLS, pose=POSE)
    encoded = {
        "image_base64": base64.b64encode(PHOTO).decode(),
        "controls": CONTROLS,
        "control_images_base64": {"pose": base64.b64encode(POSE).decode()},
    }
    for response in (await post_form(http), await http.post("v1/upscale", json=COMMON | encoded)):
        assert response.status_code == 200, response.text
        assert distance(pixels(response.content), expected) < SAME


@pytest.mark.integration
async def test_the_graph_gives_the_in_process_result(
    upscaler: Upscaler, settings: Settings, cluster_port: int
):
    """Crops of several controls travel as objects of Ray's store, and Preprocess loads the depth estimator."""
    expected = await run(upscaler, *CONTROLS, pose=POSE)
    await asyncio.to_thread(
        serve.run, build_app(settings), name="controls", route_prefix="/controls"
    )
    try:
        url = f"http://127.0.0.1:{cluster_port}/controls/"
        async with httpx.AsyncClient(base_url=url, timeout=300) as http:
            response = await post_form(http)
            missing = await http.post(
                "v1/upscale", files={"image": PHOTO}, data={"controls": '[{"name": "pose"}]'}
            )
    finally:
        await asyncio.to_thread(serve.delete, "controls")
    assert response.status_code == 200, response.text
    assert distance(pixels(response.content), expected) < SAME
    assert (missing.status_code, missing.json()["field"]) == (422, "control_images.pose")


@pytest.mark.parametrize(
    ("controls", "pictures", "status", "field"),
    [
        ([{"name": "scribble"}], {}, 422, "controls"),
        ([{"name": "upscale"}], {}, 422, "controls"),
        ([CANNY, CANNY], {}, 422, "controls"),
        ([CANNY | {"start": 0.5, "end": 0.5}], {}, 422, "controls"),
        ([CANNY | {"scale": 3}], {}, 422, "controls"),
        ([{"name": "pose"}], {}, 422, "control_images.pose"),
        ([{"name": "pose"}], {"pose": PHOTO[:-40]}, 422, "control_images.pose"),
        ([{"name": "pose"}], {"pose": b"no picture"}, 415, "control_images.pose"),
        ([CANNY], {"canny": POSE}, 422, "control_images.canny"),
        ([], {"pose": POSE}, 422, "control_images.pose"),
    ],
    ids=[
        "not offered",
        "always there",
        "twice",
        "no window",
        "too strong",
        "picture missing",
        "picture broken",
        "no picture",
        "picture made here",
        "picture unasked",
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    http: httpx.AsyncClient,
    controls: list[dict[str, Any]],
    pictures: dict[str, bytes],
    status: int,
    field: str,
):
    response = await http.post(
        "v1/upscale",
        files={
            "image": ("a.png", PHOTO),
            **{f"control_image_{name}": (name, data) for name, data in pictures.items()},
        },
        data={"controls": json.dumps(controls)},
        headers={"X-Request-Id": "mine-1"},
    )
    document = response.json()
    assert (response.status_code, document["field"]) == (status, field), document
    assert document["request_id"] == response.headers["X-Request-Id"] == "mine-1"
