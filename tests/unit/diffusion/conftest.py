"""The tiny model, loaded once for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serve_app.diffusion.loader import FluxModel, load_model


@pytest.fixture(scope="session")
def tiny(tiny_flux_folder: Path) -> FluxModel:
    """The tiny model with prompts, on the CPU in float32."""
    return load_model(tiny_flux_folder, torch.device("cpu"), torch.float32)
