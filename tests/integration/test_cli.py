"""The command line, in process and through the running server: the same pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration


def tessera(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serve_app.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.png").write_bytes(png_bytes(photo_like(30, 40, seed=1)))
    (source / "b.png").write_bytes(png_bytes(photo_like(50, 20, seed=2)))
    (source / "notes.txt").write_text("no picture")
    return source


def test_in_process_and_through_the_server_agree(
    application: Application, folder: Path, tmp_path: Path
) -> None:
    common = [str(folder), "--scale", "2.5", "--seed", "6", "--steps", "2"]
    here = tessera("upscale", *common, "-o", str(tmp_path / "here"))
    there = tessera("upscale", *common, "-o", str(tmp_path / "there"), "--server", application.url)

    assert here.returncode == 0, here.stderr
    assert there.returncode == 0, there.stderr
    for name, size in {"a.png": (100, 75), "b.png": (50, 125)}.items():
        local, remote = (
            np.asarray(Image.open(tmp_path / where / name)).astype(int)
            for where in ("here", "there")
        )
        assert local.shape == remote.shape == (size[1], size[0], 3)
        assert np.abs(local - remote).max() <= 1


def test_a_refused_picture_is_named_and_the_code_tells(
    application: Application, folder: Path, tmp_path: Path
) -> None:
    (folder / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    done = tessera(
        "upscale",
        str(folder),
        "-o",
        str(tmp_path / "out"),
        "--steps",
        "1",
        "--server",
        application.url,
    )
    assert done.returncode == 1
    assert "c.png" in done.stderr
    assert (tmp_path / "out" / "a.png").is_file()
    assert not (tmp_path / "out" / "c.png").exists()


def test_an_unreachable_server_has_its_own_code(folder: Path, tmp_path: Path) -> None:
    done = tessera(
        "upscale",
        str(folder / "a.png"),
        "-o",
        str(tmp_path / "o.png"),
        "--server",
        "http://127.0.0.1:9",
    )
    assert done.returncode == 3


def test_models_are_listed(application: Application) -> None:
    for arguments in (["models"], ["models", "--server", application.url]):
        done = tessera(*arguments)
        assert done.returncode == 0
        assert "mini" in done.stdout
