"""A replica killed in the middle of a picture costs its tiles or its call, not the picture."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray
from PIL import Image
from ray import serve

from serve_app.app import APP_NAME, compose
from serve_app.deployments.postprocess import Postprocess
from serve_app.engine.engine import Engine
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.task import Entry
from serve_app.errors import InvalidParameter
from serve_app.settings import Settings
from serve_app.telemetry import EngineMetrics
from serve_app.testing import FAKE_MODEL, photo_like, png_bytes
from serve_app.testing_app import PacedDenoiser, PacedSettings, build_paced_app
from serve_app.testing_engine import RooflineRunner
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration


def kill_denoiser() -> None:
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(f"SERVE_REPLICA::{APP_NAME}#Denoiser#"):
            ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))


@pytest.mark.usefixtures("cluster_port")
def test_more_tiles_than_the_engines_take_wait_their_turn() -> None:
    """Ray sends an engine all that both lanes take; one class alone is refused some, and sends them again."""
    small = PacedSettings.model_validate(
        {
            "pace": 0.02,
            "engine": {"max_batch": 1, "max_waiting": 1},
            "deployments": {"denoiser_cpus": 0.1},
        }
    )
    handle = serve.run(build_paced_app(small), name="small", route_prefix="/small")
    picture = png_bytes(photo_like(500, 500))
    sent = [handle.upscale.remote(picture, {"scale": 1, "steps": 2}) for _ in range(2)]
    assert [answer.result(timeout_s=60).tiles for answer in sent] == [9, 9]
    serve.delete("small")


def test_a_handle_is_told_what_is_wrong(application: Application) -> None:
    picture = png_bytes(photo_like(20, 20))
    for given in ({"priority": "soon"}, {"tenant": "a b"}):
        with pytest.raises(ray.exceptions.RayTaskError) as caught:
            application.handle.upscale.remote(picture, **given).result(timeout_s=60)
        assert isinstance(caught.value.cause, InvalidParameter)
        assert caught.value.cause.field == next(iter(given))


def test_a_killed_replica_does_not_cost_the_picture(application: Application) -> None:
    denoiser = serve.get_deployment_handle("Denoiser", APP_NAME)
    image = png_bytes(photo_like(120, 120))

    def run() -> httpx.Response:
        with application.client() as client:
            return client.post(
                "/v1/upscale",
                files={"image": image},
                data={"seed": "8", "steps": "4"},
                headers={"Accept": "application/json"},
            )

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(run)
        while denoiser.load.remote().result().tiles == 0:
            time.sleep(0.05)
        kill_denoiser()
        interrupted = answer.result().json()
    undisturbed = run().json()

    assert interrupted["tiles_retried"] > 0
    assert undisturbed["tiles_retried"] == 0
    first, second = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["image_base64"])))).astype(int)
        for answer in (interrupted, undisturbed)
    )
    assert first.shape == (480, 480, 3)
    assert np.abs(first - second).max() <= 1


class OnceBrokenRunner(RooflineRunner):
    """Loses its accelerator at its first step, unless a file says that another replica's was lost before."""

    def __init__(self, settings: PacedSettings, mark: Path) -> None:
        super().__init__(settings.paced_as_px, settings.engine, settings.pace)
        self._mark = mark
        self._broken = False

    def step(self, entries: Sequence[Entry], size: int) -> None:
        if not self._mark.exists():
            self._mark.touch()
            self._broken = True
        self.probe()
        super().step(entries, size)

    def probe(self) -> None:
        if self._broken:
            raise RuntimeError("an illegal memory access")


@pytest.mark.usefixtures("cluster_port")
def test_a_replica_without_its_accelerator_takes_no_more_tiles(tmp_path: Path) -> None:
    """It would be done with each at once, so the router would send it all of them."""
    paced = PacedSettings.model_validate(
        {"pace": 0.1, "deployments": {"denoiser_cpus": 0.1, "denoiser_replicas": 2}}
    )
    mark = tmp_path / "broken"

    class OnceBrokenDenoiser(PacedDenoiser):
        @staticmethod
        def start_engine(settings: Settings, metrics: EngineMetrics) -> Engine:
            return Engine(OnceBrokenRunner(paced, mark), Scheduler(paced.engine), metrics)

    serve.run(compose(paced, FAKE_MODEL, OnceBrokenDenoiser), name="broken", route_prefix="/broken")
    handle = serve.get_app_handle("broken")
    picture = png_bytes(photo_like(500, 500))
    answers = [
        handle.upscale.remote(picture, {"scale": 1, "steps": 4}).result(timeout_s=60)
        for _ in range(2)
    ]
    assert mark.exists()
    assert answers[0].tiles_retried > 0
    assert answers[1].tiles_retried == 0
    serve.delete("broken")


@pytest.mark.usefixtures("cluster_port")
def test_a_replica_that_dies_between_the_last_step_and_the_pixels_costs_one_tile(
    tmp_path: Path,
) -> None:
    """What follows in the stream is a reference to an error, which must not pass for the pixels."""
    paced = PacedSettings.model_validate({"pace": 0.02, "deployments": {"denoiser_cpus": 0.1}})
    mark = tmp_path / "died"

    class OnceDyingDenoiser(PacedDenoiser):
        async def denoise(self, task, *inputs):  # type: ignore[no-untyped-def]
            async for item in PacedDenoiser.denoise(self, task, *inputs):
                if isinstance(item, np.ndarray) and not mark.exists():
                    mark.touch()
                    await asyncio.sleep(0.5)  # the last step is told
                    os._exit(1)
                yield item

    serve.run(compose(paced, FAKE_MODEL, OnceDyingDenoiser), name="dying", route_prefix="/dying")
    handle = serve.get_app_handle("dying")
    answer = handle.upscale.remote(png_bytes(photo_like(500, 500)), {"scale": 1, "steps": 2})
    assert answer.result(timeout_s=120).tiles_retried > 0
    assert mark.exists()
    serve.delete("dying")


@pytest.mark.usefixtures("cluster_port")
def test_a_postprocess_that_dies_over_a_picture_costs_its_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gets the same tiles again, since the gateway holds them until the file is there."""
    paced = PacedSettings.model_validate({"pace": 0.02, "deployments": {"denoiser_cpus": 0.1}})
    mark = tmp_path / "died"

    class OnceDyingPostprocess(Postprocess):
        def finish(self, plan, params, model, source, rows):  # type: ignore[no-untyped-def]
            for item in Postprocess.finish(self, plan, params, model, source, rows):
                yield item  # the report; the file does not follow
                if not mark.exists():
                    mark.touch()
                    time.sleep(0.5)
                    os._exit(1)

    monkeypatch.setattr("serve_app.app.Postprocess", OnceDyingPostprocess)
    serve.run(compose(paced, FAKE_MODEL, PacedDenoiser), name="unfinished", route_prefix="/u")
    handle = serve.get_app_handle("unfinished")
    picture = png_bytes(photo_like(300, 300))
    sent = {"scale": 1, "steps": 2, "seed": 1}
    interrupted, undisturbed = (
        handle.upscale.remote(picture, sent).result(timeout_s=120) for _ in range(2)
    )
    assert mark.exists()
    assert interrupted.image == undisturbed.image
    assert interrupted.tiles_retried == 0
    serve.delete("unfinished")
