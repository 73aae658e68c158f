"""Prompts are encoded as the pipeline encodes them; the empty one is stored for those without encoders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxControlNetPipeline
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from serve_app.contracts import ModelInfo
from serve_app.diffusion import prompts
from serve_app.diffusion.prompts import EMBEDS_FILE, Prompt, PromptEncoder, null_prompt
from serve_app.errors import ConfigurationError
from serve_app.models.catalog import read_model_info

CPU, FLOAT = torch.device("cpu"), torch.float32
PROMPTS = {
    "empty": "",
    "words": "a sharp photograph of a red house",
    "unknown characters": "Ein Haus, 3 Bäume & 雪",
    "longer than CLIP": "house " * 60,
    "longer than T5": "a long story " * 200,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tessera" / "prompts"


@pytest.fixture
def folder(tiny_flux_folder: Path, tmp_path: Path) -> Path:
    """A model that takes prompts, its own to change, with nothing computed yet."""
    names = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    for name in names:
        shutil.copytree(tiny_flux_folder / name, tmp_path / "model" / name)
    description = json.loads((tiny_flux_folder / "tessera.json").read_text())
    (tmp_path / "model" / "tessera.json").write_text(
        json.dumps(description | {"takes_prompt": True})
    )
    return tmp_path / "model"


@pytest.fixture
def info(folder: Path) -> ModelInfo:
    return read_model_info(folder)


def load(folder: Path, tokens: int = 512, dtype: torch.dtype = FLOAT) -> PromptEncoder:
    return PromptEncoder.load(folder, read_model_info(folder), tokens, CPU, dtype, cached=8)


def as_prompt(encoder: PromptEncoder, text: str, dtype: torch.dtype = FLOAT) -> Prompt:
    return Prompt.from_arrays(encoder.encode(text), CPU, dtype)


def pipeline(folder: Path, dtype: torch.dtype = FLOAT) -> FluxControlNetPipeline:
    """diffusers' own, with nothing but its text side."""

    def encoder(kind: type, name: str) -> torch.nn.Module:
        return kind.from_pretrained(folder, subfolder=name, dtype=dtype).eval()

    return FluxControlNetPipeline(
        scheduler=None,
        vae=None,
        text_encoder=encoder(CLIPTextModel, "text_encoder"),
        tokenizer=AutoTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        text_encoder_2=encoder(T5EncoderModel, "text_encoder_2"),
        tokenizer_2=AutoTokenizer.from_pretrained(folder, subfolder="tokenizer_2"),
        transformer=None,
        controlnet=None,
    )


# Any prompt


@pytest.mark.parametrize("text", PROMPTS.values(), ids=PROMPTS.keys())
@pytest.mark.parametrize("tokens", [512, 128])
@torch.inference_mode()
def test_a_prompt_is_encoded_as_the_pipeline_encodes_it(folder: Path, text: str, tokens: int):
    sequence, pooled, _ = pipeline(folder).encode_prompt(
        text, device=CPU, max_sequence_length=tokens
    )
    ours = as_prompt(load(folder, tokens), text)
    assert torch.equal(ours.sequence, sequence)
    assert torch.equal(ours.pooled, pooled)
    assert ours.sequence.shape == (1, tokens, 32)
    assert ours.pooled.shape == (1, 32)


@torch.inference_mode()
def test_nothing_is_lost_on_the_way_in_bfloat16(folder: Path):
    sequence, pooled, _ = pipeline(folder, torch.bfloat16).encode_prompt("a house", device=CPU)
    arrays = load(folder, dtype=torch.bfloat16).encode("a house")
    assert [array.dtype for array in arrays] == [np.float32, np.float32]
    arrived = Prompt.from_arrays(arrays, CPU, torch.bfloat16)
    assert torch.equal(arrived.sequence, sequence)
    assert torch.equal(arrived.pooled, pooled)


def test_another_prompt_is_another_embedding(folder: Path):
    encoder = load(folder)
    one, other = as_prompt(encoder, "a house"), as_prompt(encoder, "a mouse")
    assert (one.sequence - other.sequence).abs().max() > 1e-3
    assert (one.pooled - other.pooled).abs().max() > 1e-3


def test_the_last_prompts_are_remembered(folder: Path):
    encoder = load(folder)
    first = encoder.encode("a house")
    assert encoder.encode("a house") is first
    for number in range(8):
        encoder.encode("m" * number)
    assert encoder.encode.cache_info().currsize == 8
    assert encoder.encode("a house") is not first


def test_what_is_remembered_cannot_be_spoilt(folder: Path):
    for array in load(folder).encode("a house"):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_encoders_may_live_elsewhere(folder: Path, tmp_path: Path):
    expected = load(folder).encode("a house")
    away = tmp_path / "away"
    stated = {}
    for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        shutil.move(folder / name, away / name)
        stated[name] = f"{away}:{name}"
    description = json.loads((folder / "tessera.json").read_text())
    (folder / "tessera.json").write_text(json.dumps(description | {"components": stated}))
    for ours, theirs in zip(load(folder).encode("a house"), expected, strict=True):
        assert np.array_equal(ours, theirs)
    null_prompt(folder, read_model_info(folder), 512, CPU, FLOAT)


# The empty prompt


def same(one: Prompt, other: Prompt) -> bool:
    return torch.equal(one.sequence, other.sequence) and torch.equal(one.pooled, other.pooled)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders whose encoders were loaded."""
    calls: list[Path] = []
    original = PromptEncoder.load.__func__

    def counted(cls: type[PromptEncoder], folder: Path, *args: Any) -> PromptEncoder:
        calls.append(folder)
        return original(cls, folder, *args)

    monkeypatch.setattr(PromptEncoder, "load", classmethod(counted))
    return calls


def store(folder: Path, tokens: int, dtype: torch.dtype = FLOAT) -> None:
    tensors = {
        "prompt_embeds": torch.full((1, tokens, 32), 0.3, dtype=dtype),
        "pooled_prompt_embeds": torch.full((1, 32), 0.7, dtype=dtype),
    }
    save_file(tensors, folder / EMBEDS_FILE)


@pytest.mark.parametrize("tokens", [512, 128])
def test_it_is_computed_once_and_stored_beside_the_model(
    folder: Path, info: ModelInfo, computed: list[Path], tokens: int
):
    first = null_prompt(folder, info, tokens, CPU, FLOAT)
    again = null_prompt(folder, info, tokens, CPU, FLOAT)
    assert computed == [folder]
    assert same(first, again)
    encoder = PromptEncoder.load(folder, info, tokens, CPU, FLOAT)
    assert same(first, as_prompt(encoder, ""))
    assert load_file(folder / f"prompt_embeds-{tokens}.safetensors").keys() == {
        "prompt_embeds",
        "pooled_prompt_embeds",
    }
    assert list(folder.glob(".prompt-*")) == []


def test_of_several_at_once_one_computes(folder: Path, info: ModelInfo, computed: list[Path]):
    with ThreadPoolExecutor(4) as pool:
        starting = [pool.submit(null_prompt, folder, info, 128, CPU, FLOAT) for _ in range(4)]
        first, *others = [start.result() for start in starting]
    assert computed == [folder]
    assert all(same(first, other) for other in others)


def test_another_length_is_computed_anew(folder: Path, info: ModelInfo, computed: list[Path]):
    store(folder, 512)
    assert null_prompt(folder, info, 512, CPU, FLOAT).sequence[0, 0, 0].item() == pytest.approx(0.3)
    assert computed == []
    assert null_prompt(folder, info, 128, CPU, FLOAT).sequence.shape == (1, 128, 32)
    assert computed == [folder]
    assert load_file(folder / EMBEDS_FILE)["prompt_embeds"].shape == (1, 512, 32)


def test_a_model_without_prompts_takes_any_length(
    folder: Path, info: ModelInfo, computed: list[Path]
):
    store(folder, 5)
    mute = info.model_copy(update={"takes_prompt": False})
    found = null_prompt(folder, mute, 512, CPU, torch.bfloat16)
    assert (found.sequence.shape, found.pooled.shape) == ((1, 5, 32), (1, 32))
    assert found.sequence.dtype == found.pooled.dtype == torch.bfloat16
    assert computed == []


def test_beside_a_model_that_cannot_be_written_the_cache_takes_it(
    folder: Path,
    info: ModelInfo,
    cache: Path,
    computed: list[Path],
    monkeypatch: pytest.MonkeyPatch,
):
    original = prompts._store
    monkeypatch.setattr(
        prompts,
        "_store",
        lambda prompt, path: path.parent != folder and original(prompt, path),
    )
    before = sorted(folder.iterdir())
    first = null_prompt(folder, info, 512, CPU, FLOAT)
    assert same(first, null_prompt(folder, info, 512, CPU, FLOAT))
    assert computed == [folder]
    assert sorted(folder.iterdir()) == before
    assert len(list(cache.glob("tiny-flux-*/prompt_embeds-512.safetensors"))) == 1


def test_what_cannot_be_written_leaves_nothing(folder: Path, tmp_path: Path):
    store(folder, 5)
    (tmp_path / "file").touch()
    prompt = Prompt(torch.zeros(1, 5, 32), torch.zeros(1, 32))
    assert not prompts._store(prompt, tmp_path / "file" / EMBEDS_FILE)
    assert not prompts._store(prompt, folder / "tokenizer")
    assert list(folder.glob(".prompt-*")) == []


def test_neither_embeddings_nor_encoders_is_refused(folder: Path, info: ModelInfo):
    shutil.rmtree(folder / "text_encoder_2")
    mute = info.model_copy(update={"takes_prompt": False})
    with pytest.raises(ConfigurationError, match="neither prompt_embeds") as caught:
        null_prompt(folder, mute, 512, CPU, FLOAT)
    assert caught.value.field == "prompt_embeds"
    assert "text_encoder_2" in caught.value.detail


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
def test_prompts_without_encoders_are_refused(folder: Path, info: ModelInfo, name: str):
    """Even where the empty prompt is stored: else the first prompt would find it out."""
    store(folder, 512)
    shutil.rmtree(folder / name)
    with pytest.raises(ConfigurationError, match=f"there is no {name}$") as caught:
        null_prompt(folder, info, 512, CPU, FLOAT)
    assert caught.value.field == "takes_prompt"


@pytest.mark.parametrize("content", [b"no tensors", None])
def test_broken_embeddings_are_refused(folder: Path, info: ModelInfo, content: bytes | None):
    if content is None:
        save_file({"prompt_embeds": torch.zeros(1, 5, 32)}, folder / EMBEDS_FILE)
    else:
        (folder / EMBEDS_FILE).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        null_prompt(folder, info, 512, CPU, FLOAT)
    assert caught.value.field == "prompt_embeds"


def no_json(part: Path) -> None:
    (part / "config.json").write_text("{")


def no_weights(part: Path) -> None:
    (part / "model.safetensors").unlink()


def fewer_weights(part: Path) -> None:
    tensors = load_file(part / "model.safetensors")
    tensors.pop(max(name for name in tensors if "layer" in name))
    save_file(tensors, part / "model.safetensors", {"format": "pt"})


def other_shapes(part: Path) -> None:
    tensors = load_file(part / "model.safetensors")
    cut = {name: tensor[:-1].contiguous() for name, tensor in tensors.items()}
    save_file(cut, part / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2"])
@pytest.mark.parametrize("fault", [no_json, no_weights, fewer_weights, other_shapes])
def test_a_broken_encoder_is_named(
    folder: Path, info: ModelInfo, name: str, fault: Callable[[Path], None]
):
    fault(folder / name)
    with pytest.raises(ConfigurationError) as caught:
        null_prompt(folder, info, 512, CPU, FLOAT)
    assert caught.value.field == name
    assert list(folder.glob("prompt_embeds*")) == []
