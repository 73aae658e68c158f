"""The engine's metrics, as Prometheus would read them off the node."""

from __future__ import annotations

import re
import time

import httpx
import pytest
import ray

from serve_app import telemetry
from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration
LIMIT_S = 60
NAMES = (
    telemetry.TILES_WAITING,
    telemetry.TILES_IN_ENGINE,
    f"{telemetry.TILES}_total",
    f"{telemetry.STEP_ROWS}_bucket",
    f"{telemetry.TURN_SECONDS}_sum",
    telemetry.STEP_TFLOPS,
)


def read(name: str, tag: str = "") -> float | None:
    """A metric's sum over the replicas, from the node's metrics port; None where it is not told."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    told = httpx.get(url, trust_env=False).raise_for_status().text
    values = re.findall(rf"^ray_{name}\{{.*{tag}.*\}} (\S+)$", told, re.MULTILINE)
    return sum(map(float, values)) if values else None


def test_a_requests_tiles_and_steps_are_on_the_nodes_metrics_port(application: Application):
    before = read(f"{telemetry.TILES}_total", 'outcome="done"') or 0
    with application.client() as client:
        files = {"image": png_bytes(photo_like(24, 24))}
        client.post("/v1/upscale", files=files, data={"steps": "2"}).raise_for_status()
    give_up = time.monotonic() + LIMIT_S
    while (read(f"{telemetry.TILES}_total", 'outcome="done"') or 0) <= before:
        assert time.monotonic() < give_up, "the agent did not export the tile"
        time.sleep(0.5)
    assert [name for name in NAMES if read(name, 'deployment="Denoiser"') is None] == []
    assert (read(f"{telemetry.TURN_SECONDS}_count", 'kind="step"') or 0) >= 2
