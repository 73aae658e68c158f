"""A rolling update under load: replicas finish their tiles or hand them back, and every request is answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray import serve

from serve_app.contracts import UpscaleResult
from serve_app.testing import photo_like, png_bytes
from serve_app.testing_app import PacedSettings, build_paced_app

pytestmark = pytest.mark.integration

NAME = "draining"
PICTURE = png_bytes(photo_like(500, 500))  # nine tiles at scale 1
PICTURES = 2
PACE = 0.2


def paced(max_waiting: int, **deployments: Any) -> PacedSettings:
    """An application; another `max_waiting` is another version of every deployment."""
    return PacedSettings.model_validate(
        {
            "pace": PACE,
            "engine": {"max_waiting": max_waiting},
            "deployments": {"denoiser_cpus": 0.1, **deployments},
        }
    )


async def update_under_load(first: PacedSettings, second: PacedSettings) -> list[UpscaleResult]:
    """Sends pictures, updates the application while their tiles run, and gives the results."""
    serve.run(build_paced_app(first), name=NAME, route_prefix="/draining")
    handle = serve.get_app_handle(NAME)
    denoiser = serve.get_deployment_handle("Denoiser", NAME)
    params = {"scale": 1, "steps": 10}
    sent = [handle.upscale.remote(PICTURE, params) for _ in range(PICTURES)]
    while (await denoiser.load.remote()).tiles_done < 2:
        await asyncio.sleep(0.05)
    await asyncio.to_thread(serve.run, build_paced_app(second), name=NAME, route_prefix="/draining")
    results = [await answer for answer in sent]
    after = await serve.get_app_handle(NAME).upscale.remote(PICTURE, {"scale": 1, "steps": 1})
    assert after.tiles_retried == 0
    serve.delete(NAME)
    return results


@pytest.mark.usefixtures("cluster_port")
async def test_replicas_finish_their_tiles_before_they_go():
    results = await update_under_load(paced(60), paced(61))
    assert [result.tiles for result in results] == [9] * PICTURES
    assert [result.tiles_retried for result in results] == [0] * PICTURES


@pytest.mark.usefixtures("cluster_port")
async def test_tiles_that_do_not_end_in_time_are_handed_back():
    results = await update_under_load(paced(60, drain_s=0.2), paced(61, drain_s=0.2))
    assert [result.tiles for result in results] == [9] * PICTURES
    assert sum(result.tiles_retried for result in results) > 0
