"""The whole graph through real HTTP: every way in, every kind of answer."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from ray import serve

from serve_app.app import APP_NAME
from serve_app.deployments.denoiser import EngineLoad
from serve_app.testing import jpeg_bytes, photo_like, png_bytes, webp_bytes
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration

TILES_OF_1600_PX = 49


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


def post(
    app: Application, image: bytes, headers: dict[str, str] | None = None, **form: Any
) -> httpx.Response:
    with app.client() as client:
        return client.post(
            "/v1/upscale", files={"image": ("cat.png", image)}, data=form, headers=headers
        )


def test_a_picture_comes_back_four_times_as_large(application: Application) -> None:
    answer = post(application, png_bytes(photo_like(61, 83)), seed=5)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert pixels(answer.content).shape == (244, 332, 3)
    assert answer.headers["x-seed"] == "5"
    assert answer.headers.get_list("x-request-id", split_commas=True).__len__() == 1
    for stage in ("prepare;dur=", "denoise;dur=", "finish;dur=", "total;dur="):
        assert stage in answer.headers["server-timing"]


def test_the_same_request_gives_the_same_picture(application: Application) -> None:
    """Within one grey level: how tiles happen to share batches changes the last bits of a sum."""
    image = png_bytes(photo_like(50, 70))
    first, second, other = (
        pixels(post(application, image, seed=seed, steps=2).content).astype(int)
        for seed in (9, 9, 10)
    )
    assert np.abs(first - second).max() <= 1
    assert np.abs(first - other).max() > 1


def test_a_drawn_seed_is_reported_and_repeats_the_picture(application: Application) -> None:
    image = png_bytes(photo_like(40, 40))
    drawn = post(application, image, steps=2)
    again = post(application, image, steps=2, seed=drawn.headers["x-seed"])
    assert np.abs(pixels(drawn.content).astype(int) - pixels(again.content)).max() <= 1


@pytest.mark.parametrize("encode", [png_bytes, jpeg_bytes, webp_bytes])
@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_every_format_in_and_out(application: Application, encode: Any, output_format: str) -> None:
    answer = post(application, encode(photo_like(20, 30)), output_format=output_format, steps=1)
    assert answer.headers["content-type"] == f"image/{output_format}"
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.format == output_format.upper()
    assert picture.size == (120, 80)


def test_json_in_and_out(application: Application) -> None:
    body = {
        "image_base64": base64.b64encode(png_bytes(photo_like(30, 20))).decode(),
        "height": 75,
        "width": 400,
        "seed": 3,
    }
    with application.client() as client:
        answer = client.post(
            "/v1/upscale", json=body, headers={"Accept": "application/json"}
        ).json()
    assert (answer["width"], answer["height"]) == (50, 75)
    assert pixels(base64.b64decode(answer["image_base64"])).shape == (75, 50, 3)
    assert answer["params"]["seed"] == 3
    assert answer["params"]["model"] == "mini"


def test_orientation_and_transparency_are_kept(application: Application) -> None:
    picture = Image.fromarray(photo_like(24, 40)).convert("RGBA")
    picture.putalpha(
        Image.fromarray(np.repeat(np.repeat([[255, 0]], 24, 0), 20, 1).astype(np.uint8))
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    buffer = io.BytesIO()
    picture.save(buffer, "png", exif=exif)

    result = pixels(post(application, buffer.getvalue(), scale=2, steps=1).content)

    assert result.shape == (80, 48, 4)
    assert result[:30, :, 3].min() == 255
    assert result[-30:, :, 3].max() == 0


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_a_moving_picture_keeps_moving(application: Application, output_format: str) -> None:
    """Each frame is as the still picture of it would be; equal frames are computed once."""
    pictures = [photo_like(24, 40, seed) for seed in (0, 1, 0)]
    first, *others = map(Image.fromarray, pictures)
    file, durations_ms = io.BytesIO(), [40, 250, 90]
    first.save(file, "PNG", save_all=True, append_images=others, duration=durations_ms, loop=2)
    asked = {"scale": 2, "steps": 1, "seed": 3, "output_format": output_format}

    answer = post(application, file.getvalue(), animated=True, **asked)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"image/{output_format}"
    assert answer.headers["x-tiles"] == "2"
    with Image.open(io.BytesIO(answer.content)) as result:
        assert (result.n_frames, result.size, result.info["loop"]) == (3, (80, 48), 2)
        for at, picture in enumerate(pictures):
            result.seek(at)
            result.load()
            assert result.info["duration"] == durations_ms[at]
            if output_format == "png":
                still = pixels(post(application, png_bytes(picture), **asked).content)
                assert np.abs(np.asarray(result).astype(int) - still).max() <= 1


def test_what_cannot_move_is_refused(application: Application) -> None:
    first, *others = (Image.fromarray(photo_like(20, 30, seed)) for seed in range(4))
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others)
    moving, still = file.getvalue(), png_bytes(photo_like(8, 8))

    for image, form, status, field in (
        (moving, {"output_format": "jpeg"}, 422, "animated"),
        (moving[: len(moving) // 2], {}, 422, "image"),
        (moving, {"max_pixels": 4 * 40 * 60 - 1, "scale": 2}, 413, "max_pixels"),
    ):
        answer = post(application, image, animated=True, steps=1, **form)
        assert (answer.status_code, answer.json()["field"]) == (status, field)
    answer = post(application, still, animated=True, steps=1, output_format="jpeg")
    assert answer.headers["content-type"] == "image/jpeg"


def test_progress_comes_as_events(application: Application) -> None:
    image = png_bytes(photo_like(70, 100))
    events: list[tuple[str, dict[str, Any]]] = []
    with (
        application.client() as client,
        client.stream(
            "POST",
            "/v1/upscale",
            files={"image": image},
            data={"steps": "3"},
            headers={"Accept": "text/event-stream"},
        ) as answer,
    ):
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                events.append((name, json.loads(line.removeprefix("data:"))))
    progress = [data for name, data in events if name == "progress"]
    assert len(progress) >= 2
    done = [data["steps_done"] for data in progress]
    assert done == sorted(done)
    assert (
        progress[-1]["steps_done"] == progress[-1]["steps_total"] == 3 * progress[-1]["tiles_total"]
    )
    assert events[-1][0] == "result"
    assert events[-1][1]["width"] == 400


def test_models_and_operations(application: Application) -> None:
    with application.client() as client:
        models = client.get("/v1/models").json()
        assert models["default"] == models["models"][0]["name"] == "mini"
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.get("/docs").status_code == 200
        described = client.get("/openapi.json").json()
        assert "/v1/upscale" in described["paths"]


BAD: list[tuple[str, bytes, dict[str, Any], int, str | None]] = [
    ("empty", b"", {}, 422, "image"),
    ("text", b"hello, this is no picture", {}, 415, "image"),
    ("truncated", png_bytes(photo_like(64, 64))[:900], {}, 422, "image"),
    ("out of range", png_bytes(photo_like(8, 8)), {"scale": 9}, 422, "scale"),
    ("unknown", png_bytes(photo_like(8, 8)), {"sclae": 2}, 422, "sclae"),
    ("both sizes", png_bytes(photo_like(8, 8)), {"scale": 2, "width": 20}, 422, "scale"),
    ("prompt", png_bytes(photo_like(8, 8)), {"prompt": "a cat"}, 422, "prompt"),
    ("shrinks", png_bytes(photo_like(8, 8)), {"width": 4}, 422, "width"),
    ("unknown model", png_bytes(photo_like(8, 8)), {"model": "none"}, 422, "model"),
]


@pytest.mark.parametrize(
    ("image", "form", "status", "field"), [case[1:] for case in BAD], ids=[c[0] for c in BAD]
)
def test_bad_input_is_answered_with_its_field(
    application: Application, image: bytes, form: dict[str, Any], status: int, field: str | None
) -> None:
    answer = post(application, image, headers={"X-Request-Id": "req-1"}, **form)
    problem = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["field"] == field
    assert problem["request_id"] == answer.headers["x-request-id"] == "req-1"


def test_a_header_over_the_limit_is_refused_before_decoding(application: Application) -> None:
    lying = bytearray(png_bytes(photo_like(8, 8)))
    lying[16:24] = (60_000).to_bytes(4, "big") * 2
    lying[29:33] = zlib.crc32(bytes(lying[12:29])).to_bytes(4, "big")
    answer = post(application, bytes(lying))
    assert answer.status_code == 413
    assert "50000000" in answer.text.replace(",", "").replace(" ", "").replace("_", "")


def test_a_result_over_the_limit_is_refused(application: Application) -> None:
    answer = post(application, png_bytes(np.zeros((2000, 2000, 3), np.uint8)), scale=8)
    assert answer.status_code == 413
    assert answer.json()["field"] == "scale"


def test_twenty_at_once_equal_their_solo_runs(application: Application) -> None:
    """Mixed sizes and parameters, so that tiles of different requests share batches."""
    requests = [
        {
            "image": png_bytes(photo_like(18 + 13 * (i % 5), 16 + 17 * (i % 4), seed=i)),
            "form": {
                "seed": i,
                "scale": [1, 1.5, 2, 3.3, 4][i % 5],
                "steps": 1 + i % 4,
                "strength": [1, 0.6][i % 2],
                "control_scale": [1, 0.8][i % 2],
                "guidance_scale": [1, 3.5, 2][i % 3],
            },
        }
        for i in range(20)
    ]

    def run(request: dict[str, Any]) -> np.ndarray[Any, Any]:
        answer = post(application, request["image"], **request["form"])
        assert answer.status_code == 200, answer.text
        return pixels(answer.content).astype(int)

    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(run, requests))
    for request, shared in zip(requests, together, strict=True):
        alone = run(request)
        assert alone.shape == shared.shape
        assert np.abs(alone - shared).max() <= 1


def test_more_than_the_gateway_takes_is_busy(application: Application) -> None:
    image = png_bytes(photo_like(40, 40))
    limit = application.settings.requests.pictures_at_once

    def run(_: int) -> httpx.Response:
        return post(application, image, steps=1)

    with ThreadPoolExecutor(limit + 12) as pool:
        answers = list(pool.map(run, range(limit + 12)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    busy = next(answer for answer in answers if answer.status_code == 429)
    assert int(busy.headers["retry-after"]) >= 1
    assert busy.json()["title"] == "Busy"


def test_a_client_that_goes_away_frees_its_tiles(application: Application) -> None:
    denoiser = serve.get_deployment_handle("Denoiser", APP_NAME)

    def load() -> EngineLoad:
        found: EngineLoad = denoiser.load.remote().result()
        return found

    before = load().tiles_done
    asked = httpx.Request(
        "POST",
        application.url + "/v1/upscale",
        files={"image": png_bytes(photo_like(400, 400))},
        data={"steps": "2"},
    )
    body = asked.read()
    host, port = application.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/upscale HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: {asked.headers['content-type']}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert eventually(lambda: load().tiles > 0)
    assert eventually(lambda: load().tiles == 0)
    assert load().tiles_done - before < TILES_OF_1600_PX


def eventually(holds: Any, tries: int = 150) -> bool:
    for _ in range(tries):
        if holds():
            return True
        time.sleep(0.1)
    return False


async def test_a_ray_handle_upscales(application: Application) -> None:
    result = await application.handle.upscale.remote(
        png_bytes(photo_like(16, 20)), {"scale": 2, "seed": 4}
    )
    assert (result.width, result.height) == (40, 32)
    assert result.params.seed == 4
    assert pixels(result.image).shape == (32, 40, 3)
