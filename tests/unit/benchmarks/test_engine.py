"""The arithmetic and the pages of `make bench-engine`; what it measures is run by the integration test."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engine
from benchmarks.chart import bars
from benchmarks.engine_latency import percentile
from benchmarks.engine_scaling import Load, busy_share


def turn(kind: str, request_id: str, index: int, started_s: float, took_s: float) -> dict[str, Any]:
    return {
        "kind": kind,
        "size": 1,
        "tiles": [[request_id, index]],
        "started_s": started_s,
        "took_s": took_s,
    }


def test_the_busy_share_counts_only_while_tiles_of_the_request_wait():
    one = [
        turn("step", "other", 0, 8.0, 1.5),  # before
        turn("encode", "large", 0, 10.0, 1.0),
        turn("step", "large", 0, 11.0, 2.0),
        turn("step", "other", 1, 13.0, 1.0),
        turn("encode", "large", 1, 14.0, 1.0),
        turn("step", "large", 1, 15.0, 9.0),  # after: nothing waits any more
    ]
    other = [turn("step", "other", 2, 9.0, 3.0)]  # half of it inside
    assert busy_share([one], "large", 1) == pytest.approx(1.0)
    assert busy_share([one, other], "large", 2) == pytest.approx((4 + 2) / 8)
    assert busy_share([one], "large", 2) == pytest.approx(0.5)


def test_a_paced_tile_takes_its_steps_and_as_much_again_for_both_ends():
    assert Load(8, 28, 1).tile_s() == pytest.approx(30 * 81.3 / 790, rel=0.01)
    assert Load(8, 28, 0.5).tile_s() == pytest.approx(Load(8, 28, 1).tile_s() / 2)


def test_percentiles_are_interpolated():
    assert percentile([float(n) for n in range(101)], 95) == pytest.approx(95)
    assert percentile([1.0, 3.0], 50) == pytest.approx(2)


def test_a_charts_bars_are_as_long_as_their_values():
    image = ET.fromstring(bars("Times <idle>", {"A & B": {"p50": 1.0}, "C": {"p50": 4.0}}))
    drawn = [e for e in image.iter("{http://www.w3.org/2000/svg}rect") if e.get("fill") != "white"]
    short, long = (float(rect.get("width", "0")) for rect in drawn)
    assert long == pytest.approx(4 * short, rel=0.01)
    assert "A & B" in [text.text for text in image.iter("{http://www.w3.org/2000/svg}text")]


def test_the_page_holds_each_measured_part_and_its_ratios(tmp_path: Path):
    idle, loaded = [1.0, 1.0, 1.2], [1.5, 2.0]
    seconds = {"idle": idle, "loaded": loaded, "job": [30.0]}
    sizes = {"tiles": 8, "steps": 4, "rounds": 1, "seconds": {"1": [8.0], "4": [4.0]}}
    run = {"picture_s": 12.0, "denoise_s": 10.0, "busy": 0.97, "small_p50_s": 1.0, "small": 3.0}
    raw = {
        "a": {"tiles": 36, "steps": 8, "interval": 3, "rounds": 1, "seconds": {"Tessera": seconds}},
        "c": sizes,
        "e": {
            "tiles": 64,
            "steps": 28,
            "pace": 1,
            "rounds": 1,
            "runs": {"1": [run], "2": [run | {"denoise_s": 5.0}]},
        },
    }
    (tmp_path / "engine.json").write_text(json.dumps(raw))
    engine.write(tmp_path)
    page = (tmp_path / "engine.md").read_text()
    assert [name for name in "abce" if f"\n## {name}. " in page] == ["a", "c", "e"]
    assert "**2.00**" in page  # twice the tiles a second in batches of 4
    assert "| 2 | 12.0 | 5.0 | 2.00 | **1.00** | **0.970** |" in page
    assert all((tmp_path / f"engine-{name}.svg").is_file() for name in "ace")
