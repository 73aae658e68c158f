"""The parts of `make bench-engine` run, in small, and write their sections of the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def run(folder: Path, *parts: str) -> dict[str, Any]:
    """The raw numbers that lie in the folder afterwards."""
    arguments = ["--only", *parts, "--quick", "--rounds", "1", "--out", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        check=True,
        timeout=400,
    )
    found: dict[str, Any] = json.loads((folder / "engine.json").read_text())
    return found


def test_a_part_runs_alone_and_others_leave_it_as_it_is(tmp_path: Path):
    alone = run(tmp_path, "c")
    assert list(alone) == ["c"]
    found = run(tmp_path, "a", "b", "e")
    assert list(found) == ["c", "a", "b", "e"]
    assert found["c"] == alone["c"]
    for part in found:
        assert f"\n## {part}. " in (tmp_path / "engine.md").read_text()
        assert (tmp_path / f"engine-{part}.svg").is_file()
