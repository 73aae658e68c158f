"""Both Spaces, built as they are pushed and started by their own commands, driven by `gradio_client`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import free_port

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
STARTS_S = 90
STOPS_S = 30


@contextmanager
def space(kind: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Builds and starts a Space; gives its address and its folder."""
    out, port = folder / kind, str(free_port())
    build = [sys.executable, str(ROOT / "scripts" / "build_space.py"), kind, str(out)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    command = "exec python app.py"
    if kind == "docker":
        (command,) = re.findall("^CMD (.+)$", (out / "Dockerfile").read_text(), re.MULTILINE)
    bin_folder = str(Path(sys.executable).parent)
    own = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(out),
        "HF_HUB_OFFLINE": "1",
        "GRADIO_SERVER_PORT": port,
        "HOST": "127.0.0.1",
        "PORT": port,
    }
    with (folder / f"{kind}.log").open("w") as log:
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=out,
            env=os.environ | own,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port}/{'ui/' if kind == 'docker' else ''}", out
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(STOPS_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def connect(url: str, downloads: Path) -> Client:
    """A client, once the Space answers."""
    ends = time.monotonic() + STARTS_S
    while True:
        try:
            return Client(url, download_files=downloads, verbose=False)
        except Exception:  # not there yet: its transports raise their own
            if time.monotonic() > ends:
                raise
            time.sleep(0.5)


@pytest.mark.parametrize("kind", ["gradio", "docker"])
def test_a_space_starts_plans_upscales_and_refuses(kind: str, tmp_path: Path) -> None:
    picture, bad = tmp_path / "small.png", tmp_path / "bad.png"
    picture.write_bytes(png_bytes(photo_like(64, 64)))
    bad.write_bytes(b"no picture")
    with space(kind, tmp_path) as (url, out):
        client = connect(url, tmp_path)
        (model,) = client.predict(api_name="/models")["models"]
        assert model["name"] == "mini"
        params = {"scale": 2, "seed": 7}
        plan = client.predict(image=handle_file(picture), params=params, api_name="/plan")
        assert (plan["height"], plan["width"]) == (128, 128)
        file, facts = client.predict(image=handle_file(picture), params=params, api_name="/upscale")
        with Image.open(file) as result:
            assert result.size == (128, 128)
        assert facts["details"]["params"]["seed"] == 7
        assert facts["details"]["report"]["lr_psnr_db"] > 30
        with pytest.raises(AppError, match="no picture"):
            client.predict(image=handle_file(bad), params={}, api_name="/upscale")
        assert not list(out.glob("*.egg-info"))
