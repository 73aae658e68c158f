"""Ray handles and Ray Data on the running application, as docs/pipelines.md tells."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from examples.ray_data import upscaled, write_pictures
from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, of which one is none, and a file that is not read."""
    path = tmp_path / "in"
    path.mkdir()
    for seed in (1, 2):
        (path / f"{seed}.png").write_bytes(png_bytes(photo_like(32, 48, seed=seed)))
    (path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (path / "notes.txt").write_text("not a picture")
    return path


def test_a_folder_becomes_pictures(
    application: Application, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = upscaled(str(folder), {"scale": 2, "seed": 5, "output_format": "webp"}, at_once=2)
    assert write_pictures(rows, tmp_path / "out") == 1
    assert "broken.png: " in capsys.readouterr().out
    made = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in made] == ["1.webp", "2.webp"]
    for path in made:
        with Image.open(path) as picture:
            assert picture.size == (96, 64)
    with application.client() as client:
        fields = {"scale": "2", "seed": "5", "output_format": "webp"}
        files = {"image": (folder / "1.png").read_bytes()}
        assert client.post("/v1/upscale", files=files, data=fields).content == made[0].read_bytes()


def test_a_folder_becomes_parquet(application: Application, folder: Path, tmp_path: Path) -> None:
    rows = upscaled(str(folder), {"scale": 2}, at_once=2)
    rows.write_parquet(str(tmp_path / "out"))
    table = pyarrow.parquet.read_table(tmp_path / "out")
    found = {Path(row["path"]).name: row for row in table.to_pylist()}
    assert sorted(found) == ["1.png", "2.png", "broken.png"]
    assert (found["1.png"]["width"], found["1.png"]["height"]) == (96, 64)
    assert found["1.png"]["lr_psnr_db"] > 30
    assert found["broken.png"]["error"].startswith("Broken image")
    assert found["broken.png"]["image"] == b""
