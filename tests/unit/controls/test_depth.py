"""Depth comes from a model folder as transformers saves it; tiny ones of random weights stand in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import pipeline

from serve_app.controls.depth import load_depth, open_depth
from serve_app.errors import ConfigurationError
from serve_app.settings import ModelSettings
from serve_app.testing import FAKE_MODEL, photo_like
from tests.unit.controls.tiny_depth import build_tiny_depth

WEIGHTS = "model.safetensors"
PICTURE = photo_like(40, 60)


@pytest.fixture(scope="module", params=["dpt", "depth_anything"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_depth(tmp_path_factory.mktemp(request.param), request.param)


def test_nearness_fills_the_whole_range_over_the_picture(folder: Path):
    found = load_depth(folder)(PICTURE.astype(np.uint16) * 257)
    assert (found.ndim, found.shape[2], found.dtype) == (3, 1, np.uint16)
    assert (found.min(), found.max()) == (0, 65535)
    assert len(np.unique(found)) > 20


def test_it_is_what_transformers_own_pipeline_predicts(folder: Path):
    theirs = pipeline("depth-estimation", model=str(folder), device="cpu")
    raw = theirs.forward(theirs.preprocess(Image.fromarray(PICTURE)))["predicted_depth"]
    raw = raw[0].numpy()
    expected = (raw - raw.min()) / (raw.max() - raw.min())
    found = load_depth(folder)(PICTURE.astype(np.uint16) * 257)[:, :, 0]
    np.testing.assert_allclose(found / 65535, expected, atol=1e-4)


def test_a_scene_without_depth_is_flat_and_no_division_by_zero(tmp_path: Path):
    folder = build_tiny_depth(tmp_path)
    weights = {name: value * 0 for name, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    assert not load_depth(folder)(PICTURE.astype(np.uint16) * 257).any()


@pytest.mark.parametrize("broken", ["nothing", "other model"])
def test_what_is_no_depth_model_is_named(tmp_path: Path, broken: str):
    if broken == "other model":
        (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ConfigurationError, match="depth_estimator") as caught:
        load_depth(tmp_path)
    assert caught.value.field == "depth_estimator"


def describe(folder: Path, **controls: dict[str, str]) -> ModelSettings:
    description = FAKE_MODEL.model_dump(mode="json")
    description["controls"] |= controls
    (folder / "tessera.json").write_text(json.dumps(description))
    return ModelSettings(source=str(folder))


def test_the_estimator_lies_in_the_models_folder(tmp_path: Path):
    build_tiny_depth(tmp_path / "depth_estimator")
    estimate = open_depth(describe(tmp_path, depth={"picture": "depth"}))
    assert estimate is not None
    assert estimate(PICTURE.astype(np.uint16) * 257).any()


def test_a_missing_estimator_is_named_at_start(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="depth_estimator"):
        open_depth(describe(tmp_path, depth={"picture": "depth"}))


def test_a_model_without_depth_loads_no_torch(tmp_path: Path):
    describe(tmp_path, edges={"picture": "canny"})
    script = (
        "import sys; from serve_app.controls.depth import open_depth;"
        "from serve_app.settings import ModelSettings;"
        f"sys.exit(open_depth(ModelSettings(source={str(tmp_path)!r})) is not None"
        " or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
