"""Schemathesis holds the server to its own OpenAPI document: no 5xx, no answer that it does not tell of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.api import create_api
from serve_app.api.jobs.desk import Desk
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.store import Store
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler
from tests.unit.api.live import serving_in_thread

pytestmark = pytest.mark.integration

LONGEST_S = 120
COMMAND = Path(sys.executable).with_name("schemathesis")
UNSAYABLE = "positive_data_acceptance"
"""That text is a picture, or bytes a ZIP, no schema says: such a request may be valid to it and refused."""
LENIENT = """
[[operations]]
include-path-regex = "^/v1/(upscale|plan)$"
[operations.checks]
negative_data_rejection.enabled = false
"""
"""A form's `animated=0` is taken, too, where the document says true or false."""


def test_no_5xx_and_no_undocumented_answer(tmp_path: Path) -> None:
    settings = Settings.parse({"images": {"upload_bytes": 50_000}})
    (tmp_path / "schemathesis.toml").write_text(LENIENT)

    async def opened() -> Store:
        return await Store.open(f"sqlite:///{tmp_path}/jobs.db")

    desk = Desk(opened, Blobs(str(tmp_path / "blobs")), settings.jobs)
    app = create_api(FakeUpscaler(), settings, desk=desk)
    with serving_in_thread(app) as url:
        bounds = ["--max-examples", "5", "--request-timeout", "10", "--seed", "1"]
        phases = ["--phases", "examples,coverage,fuzzing", "--exclude-checks", UNSAYABLE]
        done = subprocess.run(
            [COMMAND, "run", f"{url}/openapi.json", *phases, *bounds],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert "Tested: 41" in done.stdout
