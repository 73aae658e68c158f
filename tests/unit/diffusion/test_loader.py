"""A model folder loads whole, or the error names what is missing."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel, T5EncoderModel

from serve_app.diffusion.loader import FluxModel, choose_device, load_model
from serve_app.diffusion.prompts import EMBEDS_FILE
from serve_app.errors import ConfigurationError
from serve_app.models.catalog import find_model
from serve_app.settings import Settings
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


def modules(model: FluxModel) -> list[torch.nn.Module]:
    return [model.transformer, *model.controlnets.values(), model.vae]


def same_weights(one: FluxModel, other: FluxModel) -> bool:
    return all(
        torch.equal(a, b)
        for mine, theirs in zip(modules(one), modules(other), strict=True)
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True)
    )


def test_a_folder_loads_whole(bare: Path):
    model = load(bare)
    assert (model.info.name, model.vae_scale, model.latent_channels) == ("tiny-flux", 4, 16)
    assert list(model.controlnets) == ["controlnet"]
    assert model.null_prompt.sequence.shape == (1, 5, 32)
    assert model.scheduler_config["use_dynamic_shifting"] is True
    assert model.adapters.names == ()
    assert not model.offloaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_parts_are_ready_to_run(bare: Path, dtype: torch.dtype):
    model = load(bare, dtype)
    for module in modules(model):
        assert not module.training
        assert {weight.dtype for weight in module.parameters()} == {dtype}
        assert not any(weight.requires_grad for weight in module.parameters())
    assert model.null_prompt.sequence.dtype == dtype


def test_every_control_finds_its_controlnet_and_each_is_loaded_once(tmp_path: Path):
    folder = build_tiny_flux(tmp_path, False, False, with_text_encoders=False, with_union=True)
    model = load(folder)
    assert sorted(model.controlnets) == ["controlnet", "union"]
    assert model.controlnets["union"].union
    assert {control.component for control in model.info.controls.values()} == {*model.controlnets}


def test_the_empty_prompt_is_as_long_as_the_settings_say(tiny_flux_folder: Path):
    settings = Settings.parse({"prompts": {"tokens": 128}})
    model = load_model(tiny_flux_folder, CPU, torch.float32, settings)
    assert model.null_prompt.sequence.shape == (1, 128, 32)


def test_no_text_encoder_stays_in_memory(tiny_flux_folder: Path):
    def encoders() -> set[int]:
        gc.collect()
        return {id(o) for o in gc.get_objects() if type(o) in (T5EncoderModel, CLIPTextModel)}

    before = encoders()
    model = load(tiny_flux_folder)
    assert model.info.takes_prompt
    assert encoders() <= before


def test_adapters_get_their_room(bare: Path, tmp_path: Path):
    layer = "transformer.transformer_blocks.0.attn.to_q"
    factors = {
        f"{layer}.lora_A.weight": torch.ones(2, 32),
        f"{layer}.lora_B.weight": torch.ones(32, 2),
    }
    save_file(factors, tmp_path / "turbo.safetensors")
    settings = Settings.parse({"model": {"loras": str(tmp_path)}})
    model = load_model(bare, CPU, torch.float32, settings)
    assert model.adapters.names == ("turbo",)
    assert model.transformer.transformer_blocks[0].attn.to_q.down.shape == (2, 32)


# Memory


def test_what_does_not_fit_is_refused_before_a_weight_is_read(folder: Path):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(
        (folder / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()[:-100]
    )
    with pytest.raises(ConfigurationError, match="GiB of GPU memory") as caught:
        load_model(folder, CPU, torch.float32, free_bytes=2**20)
    assert caught.value.field == "engine"


def test_what_fits_is_loaded(bare: Path):
    assert load_model(bare, CPU, torch.float32, free_bytes=2 * 2**30).vae_scale == 4


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


def test_a_mode_that_its_controlnet_does_not_read_is_refused(folder: Path):
    describe(folder, controls={"upscale": {"picture": "source", "mode": 0}})
    error = fault(folder)
    assert error.field == "controls.upscale.mode"
    assert "no ControlNet-Union" in error.detail


def test_a_union_without_a_mode_is_refused(tmp_path: Path):
    folder = build_tiny_flux(
        tmp_path, takes_prompt=False, with_text_encoders=False, with_union=True
    )
    describe(folder, controls={"upscale": {"picture": "source", "component": "union"}})
    assert fault(folder).field == "controls.upscale.mode"


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
    assert fault(folder).field == "takes_prompt"


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


def test_a_model_behind_a_url_loads_whole_and_fetches_no_text_encoder(
    tiny_flux_folder: Path, tmp_path: Path
):
    elsewhere = shutil.copytree(tiny_flux_folder, tmp_path / "elsewhere")
    load(elsewhere)  # stores the empty prompt beside it
    cache = tmp_path / "cache"
    settings = Settings.parse({"model": {"cache_dir": str(cache)}})
    folder = find_model(elsewhere.as_uri(), str(cache))
    model = load_model(folder, CPU, torch.float32, settings)
    assert same_weights(model, load(elsewhere))
    assert model.scheduler_config["use_dynamic_shifting"] is True
    kept = {path.name.rpartition("-")[0] for path in cache.iterdir() if path.is_dir()}
    assert kept == {"elsewhere", "transformer", "controlnet", "vae", "scheduler"}


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
