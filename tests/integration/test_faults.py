"""A replica of the Denoiser killed in the middle of a picture costs its tiles, not the picture."""

from __future__ import annotations

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import ray
from PIL import Image
from ray import serve

from serve_app.app import APP_NAME
from serve_app.errors import InvalidParameter
from serve_app.testing import photo_like, png_bytes
from serve_app.testing_app import PacedSettings, build_paced_app
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
