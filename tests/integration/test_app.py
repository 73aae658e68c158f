"""The application as a newcomer starts it: its own process, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from serve_app.jobs.blobs import Blobs
from serve_app.jobs.records import NewItem, NewJob
from serve_app.jobs.states import ItemStatus
from serve_app.jobs.store import Store
from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import free_port

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def start(folder: Path, port: int, *arguments: str) -> subprocess.Popen[str]:
    """Starts it in a folder, where it keeps its jobs."""
    return subprocess.Popen(
        [sys.executable, "-m", "serve_app.app", "--port", str(port), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def begin_a_job(state: Path) -> tuple[Store, str]:
    """A job that takes long, once a runner is at it."""
    store = await Store.open(f"sqlite:///{state}/jobs.db")
    picture = await Blobs(str(state / "blobs")).put(png_bytes(photo_like(300, 300)))
    item = NewItem("a.png", {"scale": 4, "steps": 20, "seed": 1}, source=picture.name)
    job, _ = await store.submit(NewJob("anonymous"), [item])
    async with asyncio.timeout(60):
        while (await store.item(job.id, 0)).status is not ItemStatus.RUNNING:
            await asyncio.sleep(0.1)
    return store, job.id


async def test_it_says_when_it_is_ready_serves_and_stops_cleanly(tmp_path: Path) -> None:
    port = free_port()
    process = start(tmp_path, port, "--config", str(ROOT / "configs/local.yaml"))
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
    assert f"http://127.0.0.1:{port}/ui/" in said, said
    page = httpx.get(f"http://127.0.0.1:{port}/", follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, "/ui/")
    assert "Tessera" in page.text
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/upscale",
        files={"image": png_bytes(photo_like(20, 20))},
        data={"steps": "1"},
        timeout=120,
    )
    assert answer.status_code == 200

    store, job = await begin_a_job(tmp_path / ".tessera")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    item = await store.item(job, 0)
    assert (item.status, item.attempts) == (ItemStatus.QUEUED, 0)  # for the next start
    await store.close()


def test_a_taken_port_is_said_at_once(
    application: object, cluster_port: int, tmp_path: Path
) -> None:
    process = start(tmp_path, cluster_port)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"cannot listen on 127.0.0.1:{cluster_port}" in said
    assert "PORT=" in said


def test_a_bad_setting_is_named_at_once(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("applications: [{name: t, args: {engine: {max_bach: 3}}}]")
    process = start(tmp_path, free_port(), "--config", str(config))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "engine.max_bach" in said
