"""The application as a newcomer starts it: its own process, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import free_port

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def start(port: int, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "serve_app.app", "--port", str(port), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_it_says_when_it_is_ready_serves_and_stops_cleanly() -> None:
    port = free_port()
    process = start(port, "--config", "configs/local.yaml")
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)

    assert f"http://127.0.0.1:{port}/docs" in said, said
    assert (
        f"curl -sS -F image=@examples/photo.jpg -F scale=4 http://127.0.0.1:{port}/v1/upscale"
        in said
    )
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/upscale",
        files={"image": png_bytes(photo_like(20, 20))},
        data={"steps": "1"},
        timeout=120,
    )
    assert answer.status_code == 200

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


def test_a_taken_port_is_said_at_once(application: object, cluster_port: int) -> None:
    process = start(cluster_port)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"cannot listen on 127.0.0.1:{cluster_port}" in said
    assert "PORT=" in said


def test_a_bad_setting_is_named_at_once(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("applications: [{name: t, args: {engine: {max_bach: 3}}}]")
    process = start(free_port(), "--config", str(config))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "engine.max_bach" in said
