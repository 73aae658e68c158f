import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxTransformer2DModel,
)
from safetensors.torch import load_file

from serve_app.models.catalog import read_model_info
from training import sampling
from training.config import AUTOENCODER, CONTROLNET, TRANSFORMER
from training.export import export
from training.networks import FluxPair
from training.pairs import encode

_SMALL = {"attention_head_dim": 32, "num_attention_heads": 1, "num_single_layers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny")
    pair = FluxPair(
        FluxTransformer2DModel(**{**TRANSFORMER, **_SMALL}),
        FluxControlNetModel(**{**CONTROLNET, **_SMALL}),
    )
    autoencoder = AutoencoderTiny(**AUTOENCODER)
    autoencoder.register_to_config(shift_factor=0.1, scaling_factor=1.5)
    export(path, autoencoder, pair)
    return path


def test_the_service_reads_the_description(folder: Path) -> None:
    info = read_model_info(folder)
    assert info.tile_px % info.align_px == 0
    assert not info.takes_prompt


def test_weights_are_fp16_and_configs_are_kept(folder: Path) -> None:
    weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    config = json.loads((folder / "vae" / "config.json").read_text())
    assert (config["shift_factor"], config["scaling_factor"]) == (0.1, 1.5)


def test_loads_in_diffusers_pipeline_and_agrees_with_the_loop(folder: Path) -> None:
    absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipeline = FluxControlNetPipeline.from_pretrained(folder, dtype=torch.float32, **absent)
    pipeline.set_progress_bar_config(disable=True)
    prompt = load_file(folder / "prompt_embeds.safetensors")
    control = torch.rand(1, 3, 32, 32) * 2 - 1
    noise = torch.randn(1, 16, 8, 8)
    packed = pipeline._pack_latents(noise, 1, 16, 8, 8)
    result = pipeline(
        control_image=control,
        latents=packed,
        num_inference_steps=3,
        guidance_scale=3.5,
        controlnet_conditioning_scale=0.9,
        output_type="latent",
        height=32,
        width=32,
        **prompt,
    ).images
    model = sampling.load(folder)
    with torch.no_grad():
        latents = encode(model.autoencoder, control)
    settings = sampling.Settings(steps=3, control_scale=0.9)
    ours = sampling.denoise(model, latents, noise, settings)
    assert torch.allclose(pipeline._pack_latents(ours, 1, 16, 8, 8), result, atol=1e-4)


def test_upscale_fills_a_canvas_of_several_tiles(folder: Path) -> None:
    source = np.random.default_rng(0).random((20, 30, 3), np.float32)
    settings = sampling.Settings(steps=1, tile_px=64, overlap_px=16)
    result = sampling.upscale(sampling.load(folder), source, 80, 120, settings)
    assert result.shape == (80, 120, 3)
    assert np.isfinite(result).all()
