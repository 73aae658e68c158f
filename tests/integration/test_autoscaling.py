"""`configs/kuberay.yaml` under Ray's real autoscaler: GPU nodes come with a backlog of tiles, and go after it.

It takes half a minute where the machine is idle; the limits are for one that is busy.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import free_port
from tests.integration.fake_nodes import fake_cluster

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]

GROUPS = {"cpu": ({"CPU": 6}, 1), "gpu": ({"CPU": 4, "GPU": 1}, 2)}
TILES_OF_1200_PX = 36


def settings() -> dict[str, Any]:
    """The shipped ones, with fewer processes and less patience; a step takes a third of an H200's time."""
    (application,) = yaml.safe_load((ROOT / "configs/kuberay.yaml").read_text())["applications"]
    args: dict[str, Any] = application["args"] | {"pace": 0.3}
    args["deployments"]["cpu_stage_replicas"] = 1
    args["deployments"]["denoiser_autoscaling"] |= {"max_replicas": 2, "downscale_delay_s": 2}
    return args


class Driver:
    """The process that deployed the application.

    Attributes:
        gpus: GPU nodes in the cluster now; None until the application is there.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.gpus: int | None = None
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def until(self, holds: Callable[[], bool], limit_s: float) -> None:
        """Returns once it holds; fails if the driver ends or the time is over."""
        deadline = time.monotonic() + limit_s
        while not holds():
            assert self._process.poll() is None, "the driver has ended"
            assert time.monotonic() < deadline, f"there are {self.gpus} GPU nodes"
            time.sleep(0.1)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.gpus = int(line)


@contextmanager
def paced_application(port: int) -> Iterator[Driver]:
    with fake_cluster(GROUPS, idle_s=2) as env:
        command = [sys.executable, "-m", "tests.integration.scaling_driver"]
        process = subprocess.Popen(
            [*command, json.dumps(settings()), str(port)],
            env=env,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        with process.stdin:
            yield Driver(process)
        process.wait(30)


def test_gpu_nodes_come_with_a_backlog_of_tiles_and_go_after_it() -> None:
    port = free_port()
    image = png_bytes(photo_like(300, 300))
    with (
        paced_application(port) as driver,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=200) as client,
        ThreadPoolExecutor(2) as pool,
    ):

        def ask() -> list[httpx.Response]:
            """One picture after another, so that the backlog lasts until both nodes are there."""
            answers = []
            while not answers or (driver.gpus != 2 and time.monotonic() < deadline):
                form = {"steps": "8"}
                answers.append(client.post("/v1/upscale", files={"image": image}, data=form))
            return answers

        driver.until(lambda: driver.gpus is not None, limit_s=120)
        assert driver.gpus == 0
        assert client.get("/readyz").status_code == 200

        deadline = time.monotonic() + 120
        asked = [pool.submit(ask) for _ in range(2)]
        driver.until(lambda: driver.gpus == 2, limit_s=120)
        driver.until(lambda: all(each.done() for each in asked), limit_s=120)
        for answer in (answer for each in asked for answer in each.result()):
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-tiles"] == str(TILES_OF_1200_PX)

        driver.until(lambda: driver.gpus == 0, limit_s=120)
        assert client.get("/readyz").status_code == 200
