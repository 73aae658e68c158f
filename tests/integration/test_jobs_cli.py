"""The command line's jobs on the whole graph: a folder through a job, killed in the middle and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration

NAMES = ["a.png", "b.png", "c.png", "d.png"]
JOURNAL = ".tessera-job.json"
PATIENCE_S = 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "in"
    source.mkdir()
    for seed, name in enumerate(NAMES):
        side = 40 if name == "a.png" else 200  # the first is soon there
        (source / name).write_bytes(png_bytes(photo_like(side, side, seed=seed)))
    return source


def test_a_killed_client_goes_on_where_it_was(application: Application, folder: Path) -> None:
    out = folder.with_name("out")
    command = [sys.executable, "-m", "serve_app.cli", "upscale", str(folder), "-o", str(out)]
    command += ["--server", application.url, "--scale", "2", "--steps", "4", "--seed", "6"]

    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    first = client.stdout.readline()  # a result
    os.kill(client.pid, signal.SIGKILL)
    client.wait()
    client.stdout.close()
    assert first.startswith(f"{folder}/")
    assert (out / JOURNAL).is_file()
    there = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert there

    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert "goes on with job_" in done.stderr
    assert "of the pictures" not in done.stderr  # nothing is sent again
    assert len(done.stdout.splitlines()) == len(NAMES) - len(there)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert sorted(path.name for path in out.iterdir()) == NAMES
    assert [Image.open(out / name).size for name in NAMES] == [(80, 80), *[(400, 400)] * 3]


def test_a_job_is_submitted_watched_and_fetched(application: Application, folder: Path) -> None:
    environment = os.environ | {"TESSERA_SERVER": application.url}

    def jobs(*arguments: str) -> str:
        command = [sys.executable, "-m", "serve_app.cli", "jobs", *arguments]
        common = {"capture_output": True, "text": True, "timeout": PATIENCE_S, "env": environment}
        done = subprocess.run([*command, "--tenant", "jobs-cli"], check=True, **common)
        return str(done.stdout)

    job_id = jobs("submit", str(folder / "a.png"), "--scale", "2").strip()
    lines = jobs("watch", job_id).splitlines()
    assert lines[-1].endswith("1 of 1 done")
    assert job_id in jobs("list", "--status", "succeeded")
    target = folder.with_name("results")
    jobs("get", job_id, "-o", str(target))
    assert Image.open(target / "a.png").size == (80, 80)
