"""The whole product in one process, on the tiny model."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serve_app import local
from serve_app.contracts import Progress, UpscaleParams, Upscaler, UpscaleRequest
from serve_app.engine.engine import Engine
from serve_app.engine.scheduler import Scheduler
from serve_app.errors import (
    BrokenImage,
    ConfigurationError,
    InvalidParameter,
    ReplicaLost,
    TooLarge,
    UnsupportedImage,
)
from serve_app.local import conduct, local_upscaler
from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL, photo_like, png_bytes
from serve_app.testing_engine import IdentityRunner, PacedRunner, identity_engine

PHOTO = png_bytes(photo_like(20, 30))


def settings(folder: Path, **groups: Any) -> Settings:
    return Settings.parse(
        {"model": str(folder), "engine": {"device": "cpu", "threads": 1}} | groups
    )


def request(image: bytes = PHOTO, **params: Any) -> UpscaleRequest:
    return UpscaleRequest(image=image, params=UpscaleParams(**params), request_id="r")


def pixels(image: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(image))).astype(int)


@pytest.fixture
async def tiny(tiny_flux_folder: Path) -> AsyncIterator[Upscaler]:
    async with local_upscaler(settings(tiny_flux_folder)) as upscaler:
        yield upscaler


async def test_a_picture_is_upscaled_from_end_to_end(tiny: Upscaler):
    reports: list[Progress] = []
    result = await tiny.upscale(request(scale=2.5, seed=1), reports.append)
    assert pixels(result.image).shape == (50, 75, 3)
    assert (result.height, result.width, result.tiles) == (50, 75, 2 * 3)
    assert (reports[-1].stage, reports[-1].tiles_done, reports[-1].steps_done) == ("finish", 6, 12)
    assert result.params.model == "tiny-flux"
    assert [info.name for info in await tiny.models()] == ["tiny-flux"]
    assert await tiny.ready()


async def test_a_seed_says_what_comes_back(tiny: Upscaler):
    one, again, other = [await tiny.upscale(request(scale=2, seed=seed)) for seed in (1, 1, 2)]
    assert np.abs(pixels(one.image) - pixels(again.image)).max() <= 1
    assert np.abs(pixels(one.image) - pixels(other.image)).max() > 5


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a red house"},
        {"steps": 3},
        {"strength": 0.3},
        {"guidance_scale": 9.0},
        {"control_scale": 0.0},
        {"control_end": 0.5},
        {"true_cfg_scale": 4.0, "negative_prompt": "zzz"},
    ],
    ids=str,
)
async def test_each_parameter_acts(tiny: Upscaler, change: dict[str, Any]):
    base, changed = [await tiny.upscale(request(scale=1, seed=1, **p)) for p in ({}, change)]
    assert (pixels(base.image) != pixels(changed.image)).mean() > 0.01


@pytest.mark.parametrize(
    ("image", "params", "error", "field"),
    [
        (b"", {}, InvalidParameter, "image"),
        (b"no picture", {}, UnsupportedImage, "image"),
        (PHOTO[:-40], {}, BrokenImage, "image"),
        (PHOTO, {"width": 29}, InvalidParameter, "width"),
        (PHOTO, {"model": "other"}, InvalidParameter, "model"),
        (PHOTO, {"scale": 8}, TooLarge, "scale"),
    ],
    ids=["empty", "not a picture", "truncated", "narrower", "unknown model", "too large"],
)
async def test_a_bad_request_is_refused_by_name(
    tiny_flux_folder: Path, image: bytes, params: dict[str, Any], error: type, field: str
):
    tight = settings(tiny_flux_folder, images={"result_pixels": 20 * 30 * 16})
    async with local_upscaler(tight) as upscaler:
        with pytest.raises(error) as caught:
            await upscaler.upscale(request(image, **params))
        assert caught.value.field == field
        assert (await upscaler.upscale(request(scale=1))).tiles == 1  # nobody else is troubled


async def test_a_model_that_is_not_there_fails_at_start(tmp_path: Path):
    with pytest.raises(ConfigurationError) as caught:
        async with local_upscaler(settings(tmp_path)):
            pass
    assert caught.value.field == "model"


async def test_a_device_that_is_not_there_fails_at_start(tiny_flux_folder: Path):
    with pytest.raises(ConfigurationError) as caught:
        async with local_upscaler(settings(tiny_flux_folder, engine={"device": "cuda:99"})):
            pass
    assert caught.value.field == "engine.device"


async def test_the_engine_ends_with_the_context(tiny_flux_folder: Path):
    async with local_upscaler(settings(tiny_flux_folder)) as upscaler:
        assert await upscaler.ready()
    assert not await upscaler.ready()
    with pytest.raises(ReplicaLost, match="closed"):
        await upscaler.upscale(request())


async def test_the_engine_ends_when_the_block_fails(
    tiny_flux_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = identity_engine()
    monkeypatch.setattr(local, "build_engine", lambda *_, **__: engine)
    with pytest.raises(RuntimeError, match="inside"):
        async with local_upscaler(settings(tiny_flux_folder)):
            raise RuntimeError("inside")
    assert not engine.alive


# With crops that come back unchanged


class OnIdentity(AbstractAsyncContextManager[Upscaler]):
    """A conductor before an engine on a fake runner."""

    def __init__(self, runner: IdentityRunner, **engine: int) -> None:
        self.settings = Settings.parse({"engine": engine})
        self.engine = Engine(runner, Scheduler(self.settings.engine))

    async def __aenter__(self) -> Upscaler:
        return conduct(FAKE_MODEL, self.engine, self.settings)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.engine.close)


async def test_an_identity_engine_gives_the_picture_back():
    picture = photo_like(300, 400)
    async with OnIdentity(IdentityRunner()) as upscaler:
        result = await upscaler.upscale(request(png_bytes(picture), scale=1))
    assert np.array_equal(pixels(result.image), picture)
    assert result.tiles == 4


async def test_more_tiles_than_the_engine_lets_wait_are_all_served():
    picture = png_bytes(photo_like(500, 500))
    async with OnIdentity(IdentityRunner(), max_batch=2, max_waiting=3) as upscaler:
        running = [upscaler.upscale(request(picture, scale=1, steps=2)) for _ in range(8)]
        results = await asyncio.gather(*running)
    assert [result.tiles for result in results] == [9] * 8


async def test_cancelling_a_picture_stops_its_tiles():
    runner = PacedRunner(step_s=0.001)
    async with OnIdentity(runner, max_batch=2) as upscaler:
        began = asyncio.Event()

        def on_progress(progress: Progress) -> None:
            if progress.steps_done:
                began.set()

        picture = png_bytes(photo_like(500, 500))
        running = asyncio.create_task(
            upscaler.upscale(request(picture, scale=1, steps=100), on_progress)
        )
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        after = await upscaler.upscale(request(steps=1, scale=1))
    assert after.tiles == 1
    assert runner.rows == {}
    assert len(runner.turns) < 100


async def test_a_tile_that_stays_nan_is_replaced_and_said_to_be():
    picture = photo_like(300, 300)
    async with OnIdentity(PacedRunner(nan_at=[(1, 2)])) as upscaler:
        plain = {"scale": 1, "steps": 4, "fidelity": 0, "color_fix": "none"}
        result = await upscaler.upscale(request(png_bytes(picture), **plain))
    assert np.array_equal(pixels(result.image), picture)
    assert result.report is not None
    assert (result.tiles_retried, result.report.tiles_replaced) == (2, 1)
    assert "tile 1" in result.report.warnings[0]


async def test_a_moving_picture_moves_on():
    frames = [photo_like(60, 80, seed) for seed in (0, 1, 0, 2)]
    file = io.BytesIO()
    first, *others = map(Image.fromarray, frames)
    first.save(file, "PNG", save_all=True, append_images=others, duration=[30, 40, 50, 60], loop=3)
    plain = {"scale": 1, "steps": 2, "fidelity": 0, "color_fix": "none"}
    async with OnIdentity(IdentityRunner()) as upscaler:
        moving = await upscaler.upscale(request(file.getvalue(), animated=True, **plain))
        still = await upscaler.upscale(request(file.getvalue(), **plain))
    assert (moving.frames, moving.tiles, still.frames) == (4, 3, 1)
    with Image.open(io.BytesIO(moving.image)) as found:
        assert (found.n_frames, found.info["loop"]) == (4, 3)
        for at, (frame, duration_ms) in enumerate(zip(frames, (30, 40, 50, 60), strict=True)):
            found.seek(at)
            assert np.array_equal(np.asarray(found), frame)
            assert found.info["duration"] == duration_ms
    assert np.array_equal(pixels(still.image), frames[0])
