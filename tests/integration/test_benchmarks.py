"""Each part of `make bench-engine` runs, in small, and writes its page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("part", ["a", "b", "c", "e"])
def test_a_part_runs_alone_and_writes_its_page(part: str, tmp_path: Path):
    arguments = ["--only", part, "--quick", "--rounds", "1", "--out", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        check=True,
        timeout=300,
    )
    assert list(json.loads((tmp_path / "engine.json").read_text())) == [part]
    assert f"\n## {part}. " in (tmp_path / "engine.md").read_text()
    assert (tmp_path / f"engine-{part}.svg").is_file()
