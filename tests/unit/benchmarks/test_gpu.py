"""The GPU benchmark runs through from its command line to its page, on a CPU at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import ARMS, main
from benchmarks.gpu_report import BASELINE, Measured, compare


def table(page: str) -> dict[tuple[str, str, str], list[str]]:
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {(row[0], row[1].strip(), row[2].strip()): row for row in rows[1:]}


def run(report: Path, *more: str) -> str:
    tiny = ["--tiny", "--device", "cpu", "--batches", "1,2", "--steps", "2"]
    assert main([*tiny, "--report", str(report), *more]) == 0
    return report.read_text()


def test_every_row_is_measured_or_says_why_not(tmp_path: Path):
    page = run(tmp_path / "gpu.md", "--only", "eager,cache,offload,fp8,graphs")
    rows = table(page)
    for arm in (BASELINE, "eager", "cache", "offload"):
        for batch in ("1", "2"):
            _, _, _, step, tile, _, roofline, computed, times = rows[arm, "64", batch]
            assert float(tile) > float(step) >= 0
            assert float(roofline) >= 0
            assert float(times) > 0
            assert (float(computed) < 1) is (arm == "cache")
    assert float(rows[BASELINE, "64", "1"][-1]) == 1
    assert "bfloat16" in rows["fp8", "", ""][3]
    assert "CUDA" in rows["graphs", "", ""][3]
    assert "tiny" in page


def test_another_invocation_adds_its_rows_and_renews_the_baseline(tmp_path: Path):
    report = tmp_path / "gpu.md"
    run(report, "--only", "eager")
    first = json.loads(report.with_suffix(".json").read_text())["rows"]
    page = run(report, "--only", "offload", "--batches", "2")
    assert {arm for arm, _, _ in table(page)} == {BASELINE, "eager", "offload"}
    rows = json.loads(report.with_suffix(".json").read_text())["rows"]
    assert [r for r in rows if r["arm"] == "eager"] == [r for r in first if r["arm"] == "eager"]


def test_rows_of_another_machine_are_left_out(tmp_path: Path):
    report = tmp_path / "gpu.md"
    row = {"arm": "eager", "tile_px": 64, "batch": 7}
    report.with_suffix(".json").write_text(json.dumps({"machine": "another", "rows": [row]}))
    assert ("eager", "64", "7") not in table(run(report, "--only", "eager", "--batches", "1"))


def test_a_row_is_compared_at_its_own_tile_and_batch():
    rows = [
        Measured(BASELINE, 512, 1, tile_s=4),
        Measured(BASELINE, 512, 2, tile_s=3),
        Measured("eager", 512, 2, tile_s=2),
        Measured("eager", 1024, 1, tile_s=2),
        Measured("fp8", 0, 0, note="no"),
    ]
    compare(rows)
    assert [row.against_diffusers for row in rows] == [1, 1, 1.5, 0, 0]


def test_an_unknown_way_to_run_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--only", "warp", "--tiny", "--device", "cpu"])
    assert "warp" in capsys.readouterr().err
    assert "warp" not in ARMS
