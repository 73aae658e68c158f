"""The engine's loop with one row equals diffusers' own FluxControlNetPipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlNetPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from serve_app.contracts import ModelInfo, UpscaleParams, resolve
from serve_app.diffusion.latents import pack, unpack
from serve_app.diffusion.loader import FluxModel, load_model
from serve_app.diffusion.prompts import Prompt
from serve_app.engine.runner import FluxRunner
from serve_app.engine.task import Entry, TileTask
from serve_app.tiling.fields import noise
from serve_app.tiling.geometry import Tile
from serve_app.tiling.levels import TOP_LEVEL, Levels
from tests.tiny_flux import TILE_PX

TOLERANCE = 1e-4  # fp32, greatest difference of any latent

CASES = [
    {"steps": 1},
    {"steps": 4, "guidance_scale": 1.0, "control_scale": 1.0},
    {"steps": 8, "guidance_scale": 7.5, "control_scale": 0.3},
    {"steps": 6, "control_scale": 0.9, "control_start": 0.2, "control_end": 0.7},
    {"steps": 3, "control_scale": 0.0},
    {"steps": 4, "true_cfg_scale": 3.0},
]


@pytest.fixture(scope="module")
def model(tiny_flux_folder: Path) -> FluxModel:
    return load_model(tiny_flux_folder, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def negative(model: FluxModel) -> Prompt:
    generator = torch.Generator().manual_seed(77)
    sequence = torch.randn(model.null_prompt.sequence.shape, generator=generator)
    return Prompt(sequence, torch.randn(1, 32, generator=generator))


def control_picture(seed: int = 3) -> Levels:
    rng = np.random.default_rng(seed)
    return rng.integers(0, TOP_LEVEL + 1, (TILE_PX, TILE_PX, 3), dtype=np.uint16)


def pipeline_latents(
    model: FluxModel, negative: Prompt, control: Levels, params: dict[str, float], tile: Tile
) -> torch.Tensor:
    pipeline = FluxControlNetPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(model.scheduler_config),
        vae=model.vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=model.transformer,
        controlnet=model.controlnet,
    )
    pipeline.set_progress_bar_config(disable=True)
    start = noise(11, tile.shrunk(model.vae_scale), model.latent_channels)
    picture = torch.from_numpy(control.astype(np.float32) / TOP_LEVEL * 2 - 1)
    info: ModelInfo = model.info
    cfg = params.get("true_cfg_scale", 1.0)
    return pipeline(
        prompt_embeds=model.null_prompt.sequence,
        pooled_prompt_embeds=model.null_prompt.pooled,
        negative_prompt_embeds=negative.sequence if cfg > 1 else None,
        negative_pooled_prompt_embeds=negative.pooled if cfg > 1 else None,
        true_cfg_scale=cfg,
        height=TILE_PX,
        width=TILE_PX,
        num_inference_steps=int(params["steps"]),
        guidance_scale=params.get("guidance_scale", info.defaults.guidance_scale),
        controlnet_conditioning_scale=params.get("control_scale", info.defaults.control_scale),
        control_guidance_start=params.get("control_start", 0.0),
        control_guidance_end=params.get("control_end", 1.0),
        control_image=picture.permute(2, 0, 1)[None],
        latents=pack(torch.from_numpy(start)[None]),
        output_type="latent",
    ).images


@pytest.mark.parametrize("params", CASES, ids=str)
def test_one_row_equals_the_pipeline(
    model: FluxModel,
    negative: Prompt,
    params: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The pipeline samples the posterior where the engine takes its mean: treat both alike.
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )
    runner = FluxRunner(model, threads=1)
    monkeypatch.setattr(
        runner, "_prompt", lambda text: negative if text == "blurry" else model.null_prompt
    )
    asked = UpscaleParams(**params, negative_prompt="blurry")
    tile = Tile(64, 96, TILE_PX, TILE_PX)
    task = TileTask("r", 0, tile, resolve(asked, model.info, drawn_seed=11))
    entry = Entry(0, task, runner.plan(task))
    control = control_picture()

    runner.encode([entry], [control])
    for step in range(entry.steps):
        entry.steps_done = step
        runner.step([entry])
    ours = runner._rows[0].latents

    theirs = pipeline_latents(model, negative, control, params, tile)[0]
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max().item() < TOLERANCE


def test_packing_equals_the_pipelines(model: FluxModel) -> None:
    latents = torch.randn(2, 16, 8, 12)
    theirs = FluxControlNetPipeline._pack_latents(latents, 2, 16, 8, 12)
    assert torch.equal(pack(latents), theirs)
    assert torch.equal(unpack(pack(latents), 8, 12), latents)


def test_prompts_matter_to_this_model(model: FluxModel, negative: Prompt) -> None:
    """Else the classifier-free case above would prove nothing."""
    from serve_app.diffusion.latents import token_ids
    from serve_app.diffusion.step import Batch, denoise_step

    def run(prompt: Prompt, control_scale: float, guidance: float) -> torch.Tensor:
        latents = torch.ones(1, 16, 64)
        column = lambda value: torch.tensor([value])  # noqa: E731
        batch = Batch(
            latents, latents * 0.5, column(0.8), column(0.4), column(guidance), column(control_scale),
            [prompt], [None], column(1.0), token_ids(8, 8, model.device, model.dtype),
        )  # fmt: skip
        return denoise_step(model, batch)

    base = run(model.null_prompt, 0.6, 3.5)
    assert (run(negative, 0.6, 3.5) - base).abs().max() > 1e-2
    assert (run(model.null_prompt, 0.0, 3.5) - base).abs().max() > 1e-2
    assert (run(model.null_prompt, 0.6, 9.5) - base).abs().max() > 1e-3
