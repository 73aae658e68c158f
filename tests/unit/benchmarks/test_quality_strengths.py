"""The table of strengths: ties as the product does, and has a column for each strength and the chosen one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import quality_strengths
from benchmarks.quality_sources import Photograph
from benchmarks.quality_strengths import FAULTS, STRENGTHS, corrected
from serve_app.fidelity.measures import lr_psnr
from serve_app.levels import Pixels
from serve_app.models.catalog import find_model, read_model_info
from serve_app.resample import resize


def picture(side: int = 128) -> Pixels:
    y, x = np.mgrid[:side, :side].astype(np.float32)
    wave = 0.5 + 0.3 * np.sin(x / 5) * np.cos(y / 7)
    return np.asarray(np.stack([wave, wave * 0.9, 1 - wave], axis=-1), np.float32)


class DimProduct:
    """Enlarges plainly, and a little too dark."""

    info = read_model_info(find_model("mini"))

    def __enter__(self) -> DimProduct:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def upscale(self, source: Pixels, **params: Any) -> Pixels:
        assert params == {"fidelity": 0.0, "color_fix": "none"}
        return resize(source, source.shape[0] * 4, source.shape[1] * 4) * np.float32(0.95)


def test_more_strength_is_nearer_to_the_source():
    source = picture(32)
    result = np.random.default_rng(0).random((128, 128, 3), np.float32)
    near = [lr_psnr(corrected(result, source, strength, 3), source) for strength in STRENGTHS]
    assert near == sorted(near)
    assert near[-1] > near[0] + 6


def test_the_table_has_every_fault_and_strength(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality_strengths, "Product", DimProduct)
    monkeypatch.setattr(
        quality_strengths, "photographs", lambda photos, every: [Photograph("a", "CC0", picture())]
    )
    page = tmp_path / "fidelity.md"
    page.write_text("# Words\n")
    quality_strengths.main(["--page", str(page)])
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if "|" in line]
    assert [row[0] for row in rows[2:]] == list(FAULTS)
    assert {len(row) for row in (rows[0], *rows[2:])} == {len(STRENGTHS) + 3}
    which = {row[0]: float(row[-1]) for row in rows[2:]}
    assert which["clean"] > which["noise, 2"] > which["noise, 10"]
