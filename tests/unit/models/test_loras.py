"""Adapters are found by name, without a weight being read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serve_app.errors import ConfigurationError
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.loras import find_loras, room_rank, with_loras


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two adapters, among things that are none."""
    (tmp_path / "turbo.v2.safetensors").write_bytes(b"not read")
    (tmp_path / "hyper").mkdir()
    (tmp_path / "hyper" / "pytorch_lora_weights.safetensors").write_bytes(b"not read")
    (tmp_path / "README.md").touch()
    (tmp_path / ".hidden.safetensors").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    return tmp_path


def test_files_and_saved_folders_are_adapters(folder: Path):
    assert list(find_loras(str(folder)).items()) == [
        ("hyper", folder / "hyper" / "pytorch_lora_weights.safetensors"),
        ("turbo.v2", folder / "turbo.v2.safetensors"),
    ]


def test_no_folder_has_no_adapters(tmp_path: Path):
    assert find_loras(None) == {}
    assert find_loras(str(tmp_path)) == {}


def test_a_model_tells_its_adapters(folder: Path):
    info = read_model_info(find_model("mini"))
    assert with_loras(info, str(folder)) == info.model_copy(update={"loras": ("hyper", "turbo.v2")})
    assert with_loras(info, None) == info


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError) as caught:
        find_loras(str(tmp_path / "nowhere"))
    assert caught.value.field == "model.loras"
    assert "nowhere" in caught.value.detail


def test_one_name_for_two_adapters_is_refused(folder: Path):
    (folder / "hyper.safetensors").touch()
    with pytest.raises(ConfigurationError, match="'hyper'"):
        find_loras(str(folder))


def adapter(file: Path, rank: int) -> Path:
    """The shapes of an adapter, one half under each of two trainers' names."""
    half = {"a.lora_A.weight": (rank, 40), "lora_unet_a.lora_up.weight": (30, rank), "a.alpha": ()}
    save_file({name: np.zeros(shape, np.float16) for name, shape in half.items()}, file)
    return file


def test_the_room_holds_the_greatest_rank_that_is_an_adapters(tmp_path: Path):
    small, large = adapter(tmp_path / "small", 4), adapter(tmp_path / "large", 16)
    (tmp_path / "broken").write_bytes(b"no tensors")
    whole = tmp_path / "whole"
    save_file({"weight": np.zeros((300, 300), np.float16)}, whole)
    others = [tmp_path / "broken", tmp_path / "nowhere", whole]
    assert room_rank([small, large, *others]) == 16
    assert room_rank([small, *others]) == 4
    assert room_rank(others) == 0
