"""A model folder loads whole, or the error names what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.diffusion.loader import FluxModel, choose_device, load_model
from serve_app.diffusion.prompts import EMBEDS_FILE
from serve_app.errors import ConfigurationError
from tests.tiny_flux import build_tiny_flux

CPU = torch.device("cpu")
PARTS = ("transformer", "controlnet", "vae")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes no prompts and has no text encoders."""
    folder = tmp_path_factory.mktemp("bare")
    return build_tiny_flux(folder, takes_prompt=False, with_text_encoders=False)


@pytest.fixture
def folder(bare: Path, tmp_path: Path) -> Path:
    """A copy of the bare model, to be broken."""
    return shutil.copytree(bare, tmp_path / "model")


def load(folder: Path, dtype: torch.dtype = torch.float32) -> FluxModel:
    return load_model(folder, CPU, dtype)


def describe(folder: Path, **changes: Any) -> None:
    path = folder / "tessera.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def fault(folder: Path) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(folder)
    return caught.value


def same_weights(one: FluxModel, other: FluxModel) -> bool:
    return all(
        torch.equal(a, b)
        for name in PARTS
        for a, b in zip(
            getattr(one, name).parameters(), getattr(other, name).parameters(), strict=True
        )
    )


def test_a_folder_loads_whole(bare: Path):
    model = load(bare)
    assert (model.info.name, model.vae_scale, model.latent_channels) == ("tiny-flux", 4, 16)
    assert model.prompt_encoder is None
    assert model.null_prompt.sequence.shape == (1, 5, 32)
    assert model.scheduler_config["use_dynamic_shifting"] is True


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_parts_are_ready_to_run(bare: Path, dtype: torch.dtype):
    model = load(bare, dtype)
    for name in PARTS:
        module = getattr(model, name)
        assert not module.training
        assert {weight.dtype for weight in module.parameters()} == {dtype}
        assert not any(weight.requires_grad for weight in module.parameters())
    assert model.null_prompt.sequence.dtype == dtype


def test_text_encoders_give_every_prompt_one_length(tiny: FluxModel):
    """Else the empty prompt could not share a batch with another one."""
    assert tiny.prompt_encoder is not None
    assert tiny.null_prompt.sequence.shape == tiny.prompt_encoder.encode("a house").sequence.shape
    assert torch.equal(tiny.null_prompt.pooled, tiny.prompt_encoder.encode("").pooled)


def test_text_encoders_replace_stored_embeddings(tiny_flux_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_flux_folder, tmp_path / "model")
    (folder / EMBEDS_FILE).unlink()
    assert load(folder).null_prompt.sequence.shape == (1, 512, 32)


def test_text_encoders_that_nothing_needs_are_not_loaded(tiny_flux_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_flux_folder, tmp_path / "model")
    describe(folder, takes_prompt=False)
    model = load(folder)
    assert model.prompt_encoder is None
    assert model.null_prompt.sequence.shape == (1, 5, 32)


# What is missing or broken


@pytest.mark.parametrize("name", [*PARTS, "scheduler"])
def test_a_missing_component_is_named(folder: Path, name: str):
    shutil.rmtree(folder / name)
    error = fault(folder)
    assert error.field == name
    assert name in error.detail


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_weights_file_is_named(folder: Path, name: str):
    (folder / name / "diffusion_pytorch_model.safetensors").unlink()
    assert fault(folder).field == name


@pytest.mark.parametrize("name", PARTS)
def test_a_truncated_weights_file_is_named(folder: Path, name: str):
    path = folder / name / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert fault(folder).field == name


@pytest.mark.parametrize("name", [*PARTS, "scheduler"])
def test_a_broken_configuration_is_named(folder: Path, name: str):
    path = next((folder / name).glob("*.json"))
    path.write_text("{")
    assert fault(folder).field == name


def test_another_kind_of_autoencoder_is_refused(folder: Path):
    path = folder / "vae" / "config.json"
    path.write_text(path.read_text().replace('"AutoencoderKL"', '"AutoencoderDC"'))
    error = fault(folder)
    assert error.field == "vae"
    assert error.allowed == "AutoencoderKL or AutoencoderTiny"


def test_a_grid_that_is_not_one_token_is_refused(folder: Path):
    describe(folder, align_px=16, overlap_px=0)
    error = fault(folder)
    assert error.field == "align_px"
    assert "8 px" in error.detail


def test_neither_embeddings_nor_encoders_is_refused(folder: Path):
    (folder / EMBEDS_FILE).unlink()
    error = fault(folder)
    assert error.field == "prompt_embeds"
    assert EMBEDS_FILE in error.detail


def test_broken_embeddings_are_refused(folder: Path):
    (folder / EMBEDS_FILE).write_bytes(b"no tensors")
    assert fault(folder).field == "prompt_embeds"


def test_prompts_without_text_encoders_are_refused(folder: Path):
    describe(folder, takes_prompt=True)
    assert fault(folder).field == "takes_prompt"


def test_text_encoders_without_a_tokenizer_are_refused(tiny_flux_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_flux_folder, tmp_path / "model")
    shutil.rmtree(folder / "tokenizer_2")
    assert fault(folder).field == "text_encoder"


def test_a_bad_description_is_named(folder: Path):
    describe(folder, tile_px=0)
    assert fault(folder).field == "tile_px"


# Components that live elsewhere


@pytest.mark.parametrize(
    "written",
    [lambda away: str(away), lambda away: f"../{away.name}"],
    ids=["absolute", "relative"],
)
@pytest.mark.parametrize("subfolder", ["", ":inside"])
def test_components_may_live_in_another_folder(
    bare: Path, folder: Path, tmp_path: Path, written: Callable[[Path], str], subfolder: str
):
    stated = {}
    for name in (*PARTS, "scheduler"):
        away = tmp_path / f"away-{name}"
        away.mkdir()
        shutil.move(folder / name, away / "inside")
        stated[name] = f"{written(away)}{subfolder or '/inside'}"
    describe(folder, components=stated)
    assert same_weights(load(folder), load(bare))


def test_a_component_that_is_nowhere_is_named(folder: Path):
    describe(folder, components={"controlnet": "./nowhere"})
    assert fault(folder).field == "controlnet"


@pytest.mark.parametrize("stated", ["", ":only", "@main"])
def test_a_malformed_source_is_named(folder: Path, stated: str):
    describe(folder, components={"vae": stated})
    error = fault(folder)
    assert error.field == "vae"
    assert error.allowed == "SOURCE[@REVISION][:SUBFOLDER]"


def test_an_unknown_component_is_named(folder: Path):
    describe(folder, components={"controlnets": "elsewhere"})
    error = fault(folder)
    assert error.field == "controlnets"
    assert "controlnet" in str(error.allowed)


# Devices


def test_automatic_choices_fit_the_machine():
    device, dtype = choose_device("auto", "auto")
    cuda = torch.cuda.is_available()
    assert (device.type, dtype) == (("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32))


def test_a_stated_device_and_type_are_taken():
    assert choose_device("cpu", "float16") == (CPU, torch.float16)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name: str):
    with pytest.raises(ConfigurationError) as caught:
        choose_device(name, "auto")
    assert caught.value.field == "engine.device"
    assert name in caught.value.detail
