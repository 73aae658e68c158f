"""The processes without an accelerator load no torch; whatever they import is checked in a fresh one."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["gateway", "preprocess", "postprocess", "denoiser"])
def test_importing_a_deployment_loads_no_torch(module: str) -> None:
    code = f"import sys, serve_app.deployments.{module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
