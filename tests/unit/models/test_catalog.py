"""A model is found by name or by path, and its description is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.errors import ConfigurationError
from serve_app.models import catalog
from serve_app.models.catalog import DESCRIPTION_FILE, find_model, read_model_info
from serve_app.models.source import check_components, is_remote
from serve_app.settings import Settings

DESCRIPTION: dict[str, Any] = {
    "name": "house",
    "description": "For tests.",
    "license": "Apache-2.0",
    "tile_px": 64,
    "overlap_px": 16,
    "align_px": 16,
}


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION_FILE).write_text(json.dumps(DESCRIPTION | changes))
    return folder


def test_a_folder_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write(tmp_path / "house")
    assert find_model(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    assert find_model("./house") == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_model("~/house") == folder


def test_a_shipped_model_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path)
    assert find_model(write(tmp_path / "house").name) == tmp_path / "house"


def test_an_unknown_model_names_the_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path)
    for name in ("house", "barn"):
        write(tmp_path / name)
    with pytest.raises(ConfigurationError) as caught:
        find_model("hous")
    assert caught.value.field == "model"
    assert str(caught.value.allowed).startswith("barn, house, a path")


def test_a_folder_without_a_description_is_no_model(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=DESCRIPTION_FILE):
        find_model(str(tmp_path))


def test_a_description_is_read(tmp_path: Path):
    info = read_model_info(write(tmp_path, defaults={"steps": 4}))
    assert (info.name, info.tile_px, info.defaults.steps) == ("house", 64, 4)
    assert info.takes_prompt is False


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tile_px": 0}, "tile_px"),
        ({"tile_px": "wide"}, "tile_px"),
        ({"name": "no spaces"}, "name"),
        ({"licence": "typo"}, "licence"),
        ({"defaults": {"steps": 0}}, "defaults.steps"),
        ({"defaults": {"step": 1}}, "defaults.step"),
        ({"limits": {"steps": ["few", 2]}}, "limits.steps.0"),
    ],
    ids=str,
)
def test_a_bad_field_is_named(tmp_path: Path, changes: dict[str, Any], field: str):
    with pytest.raises(ConfigurationError) as caught:
        read_model_info(write(tmp_path, **changes))
    assert caught.value.field == field
    assert field in caught.value.detail
    assert DESCRIPTION_FILE in caught.value.detail


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tile_px": 65}, "tile_px must be a multiple of align_px"),
        ({"overlap_px": 8}, "overlap_px must be a multiple of align_px"),
        ({"overlap_px": 32}, "overlap_px must be at most a third of tile_px"),
    ],
    ids=str,
)
def test_lengths_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str
):
    with pytest.raises(ConfigurationError, match=reason):
        read_model_info(write(tmp_path, **changes))


def test_a_missing_field_is_named(tmp_path: Path):
    write(tmp_path)
    (tmp_path / DESCRIPTION_FILE).write_text(json.dumps({"name": "house"}))
    with pytest.raises(ConfigurationError) as caught:
        read_model_info(tmp_path)
    assert caught.value.field == "description"


def test_what_is_not_json_is_refused(tmp_path: Path):
    (tmp_path / DESCRIPTION_FILE).write_text("{")
    with pytest.raises(ConfigurationError, match="JSON"):
        read_model_info(tmp_path)


def test_a_missing_description_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError) as caught:
        read_model_info(tmp_path)
    assert caught.value.field == "model"


def test_every_shipped_description_is_valid_and_named_after_its_folder():
    for path in catalog.SHIPPED.glob(f"*/{DESCRIPTION_FILE}"):
        assert read_model_info(path.parent).name == path.parent.name


def test_the_config_for_gpus_names_a_shipped_model_with_its_published_defaults():
    config = yaml.safe_load((Path(__file__).parents[3] / "configs" / "gpu.yaml").read_text())
    settings = Settings.parse(config["applications"][0]["args"])
    info = read_model_info(find_model(settings.model.source))
    defaults = info.defaults
    assert (info.tile_px, info.overlap_px, info.align_px) == (1024, 128, 16)
    assert (defaults.steps, defaults.guidance_scale, defaults.control_scale) == (28, 3.5, 0.6)
    check_components(info)
    assert all(is_remote(source) for source in info.components.values())
    engine = settings.engine
    unmeasured = (engine.compile, engine.cuda_graphs, engine.offload, engine.residual_cache)
    assert not any(unmeasured)
    assert (engine.quantization, engine.attention) == ("none", None)
