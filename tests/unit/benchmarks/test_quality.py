"""The quality benchmark worsens, measures and tabulates as it says; the product is played by resizing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import quality, quality_steps
from benchmarks.quality_product import as_png
from benchmarks.quality_sheets import write_sheet
from benchmarks.quality_sources import WORSE, Photograph, as_jpeg, with_noise
from benchmarks.quality_steps import detail_of, fewer_below
from serve_app.contracts import UpscaleParams, resolve
from serve_app.engine.task import TileInputs, TileTask
from serve_app.levels import Pixels, to_levels
from serve_app.models.catalog import find_model, read_model_info
from serve_app.resample import resize
from serve_app.tiling.geometry import Tile

INFO = read_model_info(find_model("mini"))


def picture(side: int = 128) -> Pixels:
    y, x = np.mgrid[:side, :side].astype(np.float32)
    wave = 0.5 + 0.3 * np.sin(x / 5) * np.cos(y / 7)
    return np.asarray(np.stack([wave, wave * 0.9, 1 - wave], axis=-1), np.float32)


def task(steps: int = 8) -> TileTask:
    params = resolve(UpscaleParams(steps=steps), INFO, drawn_seed=0)
    return TileTask("r", 0, Tile(0, 0, 272, 272), params)


class PlainProduct:
    """Enlarges plainly and notes what it was asked for; each picture is one flat and one detailed tile."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __enter__(self) -> PlainProduct:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def upscale(
        self, source: Pixels, change: Any = None, told: Any = None, **params: Any
    ) -> Pixels:
        self.asked.append(params)
        if change is not None:
            flat = np.full((16, 16, 3), 30000, np.uint16)
            for crop in (flat, to_levels(picture(16))):
                change(task(params["steps"]), TileInputs([crop]))
        return resize(source, source.shape[0] * 4, source.shape[1] * 4)


def photograph() -> Photograph:
    return Photograph("a", "CC0", picture())


def test_noise_is_as_strong_as_said_and_always_the_same():
    gray = np.full((200, 200, 3), 0.5, np.float32)
    found = with_noise(10)(gray)
    assert (found - gray).std() * 255 == pytest.approx(10, rel=0.03)
    assert np.array_equal(found, with_noise(10)(gray))


def test_a_lower_quality_is_farther_away():
    source = picture()
    errors = [np.abs(as_jpeg(q)(source) - source).mean() for q in (95, 85, 60)]
    assert errors == sorted(errors)
    assert errors[0] > 0


@pytest.mark.parametrize("fault", [None, *WORSE])
def test_every_arm_is_measured(fault: str | None):
    product: Any = PlainProduct()
    arms = {"one": {"fidelity": 0.0}, "two": {"denoise": 1.0}}
    rows = quality.compare(product, [photograph()], arms, fault).splitlines()[2:]
    names = [row.strip("| ").split(" | ")[0] for row in rows]
    assert names == ["bicubic", "Lanczos", "Lanczos + bp", "one", "two"]
    assert product.asked == list(arms.values())
    assert (
        rows[0].split("|")[2:] == rows[3].split("|")[2:]
    )  # plain resizing measures as bicubic does


def test_a_flat_tile_gets_few_steps_and_another_all():
    change = fewer_below(2, 2)
    flat = TileInputs([np.full((16, 16, 3), 30000, np.uint16)])
    assert change(task(), flat).params.steps == 2
    assert change(task(), TileInputs([to_levels(picture(16))])).params.steps == 8


def test_detail_is_in_levels_a_pixel():
    slope = np.arange(16, dtype=np.float32)[None, :, None] / 255
    levels = to_levels(np.ascontiguousarray(np.broadcast_to(slope, (16, 16, 3))))
    assert detail_of(levels) == pytest.approx(1, abs=0.01)


def test_steps_run_are_counted():
    product: Any = PlainProduct()
    lines = quality_steps.table(product, [photograph()]).splitlines()[2:]
    run = [int(line.split("|")[2]) for line in lines]
    assert run[:4] == [2, 4, 8, 16]
    assert run[4:] == [9, 10, 12] * 2


def test_the_page_has_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality, "Product", PlainProduct)
    monkeypatch.setattr(quality, "photographs", lambda photos, every: [photograph()])
    page = tmp_path / "docs" / "quality.md"
    quality.main(["--page", str(page), "--only", "clean,faulty,steps"])
    text = page.read_text()
    for name in ("clean sources", *WORSE, "adaptive steps", "machine"):
        assert text.count(f"<!-- {name} -->") == 1
    quality.main(["--page", str(page), "--only", "clean"])
    assert page.read_text().count("<!-- clean sources -->") == 1


def test_a_sheet_holds_both(tmp_path: Path):
    small = picture(32)
    write_sheet(tmp_path / "sheet.jpg", small, resize(small, 128, 128))
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.size == (128 + 8 + 128, 128)


def test_a_source_is_sent_as_8_bits():
    assert as_png(picture(8))[24] == 8
