"""The tiny models, loaded once for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serve_app.diffusion.loader import FluxModel, load_model
from tests.tiny_flux import build_tiny_flux


@pytest.fixture(scope="session")
def tiny(tiny_flux_folder: Path) -> FluxModel:
    """The tiny model with prompts, on the CPU in float32."""
    return load_model(tiny_flux_folder, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def union(tmp_path_factory: pytest.TempPathFactory) -> FluxModel:
    """A tiny model with a ControlNet-Union beside its ControlNet, on the CPU in float32."""
    folder = tmp_path_factory.mktemp("union")
    build_tiny_flux(folder, takes_prompt=False, with_text_encoders=False, with_union=True)
    return load_model(folder, torch.device("cpu"), torch.float32)
