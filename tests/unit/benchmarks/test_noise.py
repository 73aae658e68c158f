"""The noise benchmark adds the noise that it says, and tells right from wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import noise
from serve_app.fidelity.noise import SourceFaults, judge_source
from serve_app.levels import to_levels

GRAY = np.full((200, 200, 3), 0.5, np.float32)


@pytest.mark.parametrize("name", [n for n, (sigma, _) in noise.FAULTS.items() if sigma])
def test_noise_is_as_strong_as_its_name_says(name: str):
    sigma, worse = noise.FAULTS[name]
    found = (worse(GRAY) - GRAY)[..., 1].std() * 255
    if "JPEG" in name:
        assert found < sigma
    else:
        assert found == pytest.approx(sigma, rel=0.05)


def test_kinds_of_noise_differ_as_they_should():
    gray = noise.gray_noise(5)(GRAY)
    assert np.array_equal(gray[..., 0], gray[..., 2])
    light = noise.light_noise(5)
    assert (light(GRAY / 4) - GRAY / 4).std() == pytest.approx(
        (light(GRAY) - GRAY).std() / 2, rel=0.1
    )
    soft = noise.soft_noise(5)(GRAY)[..., 0] - 0.5
    assert np.mean(soft[1:] * soft[:-1]) == pytest.approx(soft.var() / 2, rel=0.1)


def test_drawings_are_clean():
    drawings = noise.drawings()
    assert len(drawings) == 13
    for drawing in drawings:
        assert drawing.dtype == np.float32
        assert drawing.shape[2] == 3
        assert drawing.min() >= 0
        assert drawing.max() <= 1
        assert judge_source(to_levels(drawing)).noise * 255 < 1.5


def test_the_table_counts_what_is_right():
    told = [SourceFaults(sigma / 255, 0.25) for sigma in (1.0, 4.0, 6.0)]
    by_noise, by_blocks = noise.tables({"clean": {"a": told}, "noise, 5": {"a": told}})
    rows = by_noise.splitlines()[2:]
    assert rows[0] == "| clean | 4.0 (1.0 to 6.0), 1 of 3 |"
    assert rows[1] == "| noise, 5 | 4.0 (1.0 to 6.0), 2 of 3 |"
    assert by_blocks.splitlines()[2] == "| clean | 0.25 (0.25 to 0.25) |"


def test_the_page_gets_both_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(noise, "pictures", lambda photos: {"gray": [GRAY[:32, :32]]})
    page = tmp_path / "noise.md"
    page.write_text("# Noise\n\nWords.\n")
    noise.main(["--page", str(page)])
    text = page.read_text()
    assert text.startswith("# Noise\n\nWords.\n")
    assert text.count("| noise, 20 |") == 2
