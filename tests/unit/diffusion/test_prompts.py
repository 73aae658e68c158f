"""Prompts are encoded as the pipeline encodes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxControlNetPipeline

from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.prompts import EMBEDS_FILE, PromptEncoder, read_null_prompt

CPU, FLOAT = torch.device("cpu"), torch.float32
PROMPTS = {
    "empty": "",
    "words": "a sharp photograph of a red house",
    "unknown characters": "Ein Haus, 3 Bäume & 雪",
    "longer than CLIP": "house " * 60,
    "longer than T5": "a long story " * 200,
}


@pytest.fixture
def encoder(tiny_flux_folder: Path) -> PromptEncoder:
    found = PromptEncoder.from_folder(tiny_flux_folder, CPU, FLOAT)
    assert found is not None
    return found


@pytest.fixture
def pipeline(encoder: PromptEncoder, tiny: FluxModel) -> FluxControlNetPipeline:
    return FluxControlNetPipeline(
        scheduler=None,
        vae=None,
        text_encoder=encoder._clip,
        tokenizer=encoder._clip_tokenizer,
        text_encoder_2=encoder._t5,
        tokenizer_2=encoder._t5_tokenizer,
        transformer=tiny.transformer,
        controlnet=tiny.controlnet,
    )


@pytest.mark.parametrize("text", PROMPTS.values(), ids=PROMPTS.keys())
@torch.inference_mode()
def test_a_prompt_is_encoded_as_the_pipeline_encodes_it(
    encoder: PromptEncoder, pipeline: FluxControlNetPipeline, text: str
):
    sequence, pooled, _ = pipeline.encode_prompt(text, prompt_2=None, device=CPU)
    ours = encoder.encode(text)
    assert torch.equal(ours.sequence, sequence)
    assert torch.equal(ours.pooled, pooled)
    assert ours.sequence.shape == (1, 512, 32)
    assert ours.pooled.shape == (1, 32)


def test_another_prompt_is_another_embedding(encoder: PromptEncoder):
    one, other = encoder.encode("a house"), encoder.encode("a mouse")
    assert (one.sequence - other.sequence).abs().max() > 1e-3
    assert (one.pooled - other.pooled).abs().max() > 1e-3


def test_a_prompt_is_encoded_once(encoder: PromptEncoder):
    first = encoder.encode("a house")
    assert encoder.encode("a house") is first
    assert encoder.encode("a mouse") is not first
    assert (encoder.encode.cache_info().hits, encoder.encode.cache_info().misses) == (1, 2)


def test_the_cache_is_bounded(encoder: PromptEncoder):
    assert encoder.encode.cache_info().maxsize == 64


def test_a_folder_without_encoders_has_none(tmp_path: Path):
    assert PromptEncoder.from_folder(tmp_path, CPU, FLOAT) is None
    (tmp_path / "text_encoder").mkdir()
    assert PromptEncoder.from_folder(tmp_path, CPU, FLOAT) is None


def test_a_folder_without_stored_embeddings_has_no_null_prompt(tmp_path: Path):
    assert read_null_prompt(tmp_path, CPU, FLOAT) is None


def test_stored_embeddings_are_read_and_cast(tiny_flux_folder: Path):
    assert (tiny_flux_folder / EMBEDS_FILE).is_file()
    found = read_null_prompt(tiny_flux_folder, CPU, torch.bfloat16)
    assert found is not None
    assert (found.sequence.shape, found.pooled.shape) == ((1, 5, 32), (1, 32))
    assert found.sequence.dtype == found.pooled.dtype == torch.bfloat16
