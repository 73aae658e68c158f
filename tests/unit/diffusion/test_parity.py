"""The engine's loop with one row equals diffusers' own FluxControlNetPipeline, with one control or several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlNetPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.controlnets.controlnet_flux import FluxMultiControlNetModel

from serve_app.contracts import ControlInfo, ControlParams, UpscaleParams, resolve
from serve_app.diffusion.latents import pack, unpack
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.prompts import Prompt
from serve_app.engine.runner import FluxRunner
from serve_app.engine.task import Entry, PromptArrays, TileInputs, TileTask
from serve_app.levels import TOP_LEVEL, Levels
from serve_app.settings import EngineSettings
from serve_app.tiling.fields import noise
from serve_app.tiling.geometry import Tile
from tests.tiny_flux import TILE_PX

TOLERANCE = 1e-4  # fp32, greatest difference of any latent
TILE = Tile(64, 96, TILE_PX, TILE_PX)

CASES = [
    {"steps": 1},
    {"steps": 4, "guidance_scale": 1.0, "control_scale": 1.0},
    {"steps": 8, "guidance_scale": 7.5, "control_scale": 0.3},
    {"steps": 6, "control_scale": 0.9, "control_start": 0.2, "control_end": 0.7},
    {"steps": 3, "control_scale": 0.0},
    {"steps": 4, "true_cfg_scale": 3.0, "negative_prompt": "blurry"},
]

MAIN = ControlInfo(picture="source")
WITH = {name: ControlInfo(picture="given", component="union", mode=mode)
        for mode, name in enumerate(("canny", "depth", "pose"))}  # fmt: skip


@pytest.fixture(autouse=True)
def posterior_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline samples the posterior where the engine takes its mean: treat both alike."""
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )


@pytest.fixture(scope="module")
def negative(tiny: FluxModel) -> Prompt:
    generator = torch.Generator().manual_seed(77)
    sequence = torch.randn(tiny.null_prompt.sequence.shape, generator=generator)
    return Prompt(sequence, torch.randn(1, 32, generator=generator))


def picture(seed: int) -> Levels:
    rng = np.random.default_rng(seed)
    return rng.integers(0, TOP_LEVEL + 1, (TILE_PX, TILE_PX, 3), dtype=np.uint16)


def ours(
    model: FluxModel, asked: dict[str, Any], pictures: list[Levels], negative: Prompt | None
) -> torch.Tensor:
    runner = FluxRunner(model, EngineSettings(max_batch=2), threads=1)
    params = resolve(UpscaleParams(**asked), model.info, drawn_seed=11)
    prompts = [PromptArrays(*negative.to_arrays())] if negative and params.texts else []
    task, inputs = TileTask("r", 0, TILE, params), TileInputs(pictures, prompts)
    entry = Entry(0, task, *runner.plan(task, inputs))
    runner.encode([entry], [inputs], 1)
    for step in range(entry.steps):
        entry.steps_done = step
        runner.step([entry], 2)
    return runner._rows[0].latents


def pipelines(
    model: FluxModel, controlnet: Any, pictures: list[Levels], **words: Any
) -> torch.Tensor:
    """What the pipeline makes of the same; `words` are its own."""
    pipeline = FluxControlNetPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(model.scheduler_config),
        vae=model.vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=model.transformer,
        controlnet=controlnet,
    )
    pipeline.set_progress_bar_config(disable=True)
    start = noise(11, TILE.shrunk(model.vae_scale), model.latent_channels)
    images = [
        torch.from_numpy(each.astype(np.float32) / TOP_LEVEL * 2 - 1).permute(2, 0, 1)[None]
        for each in pictures
    ]
    found = pipeline(
        prompt_embeds=model.null_prompt.sequence,
        pooled_prompt_embeds=model.null_prompt.pooled,
        height=TILE_PX,
        width=TILE_PX,
        control_image=images if isinstance(controlnet, FluxMultiControlNetModel) else images[0],
        latents=pack(torch.from_numpy(start)[None]),
        output_type="latent",
        **words,
    )
    latents: torch.Tensor = found.images[0]
    return latents


def assert_equal(one: torch.Tensor, other: torch.Tensor) -> None:
    assert other.std() > 0.1
    assert (one - other).abs().max().item() < TOLERANCE


@pytest.mark.parametrize("asked", CASES, ids=str)
def test_one_row_equals_the_pipeline(
    tiny: FluxModel, negative: Prompt, asked: dict[str, Any]
) -> None:
    defaults = tiny.info.defaults
    guided = "true_cfg_scale" in asked
    theirs = pipelines(
        tiny,
        tiny.controlnets["controlnet"],
        [picture(3)],
        negative_prompt_embeds=negative.sequence if guided else None,
        negative_pooled_prompt_embeds=negative.pooled if guided else None,
        true_cfg_scale=asked.get("true_cfg_scale", 1.0),
        num_inference_steps=asked["steps"],
        guidance_scale=asked.get("guidance_scale", defaults.guidance_scale),
        controlnet_conditioning_scale=asked.get("control_scale", defaults.control_scale),
        control_guidance_start=asked.get("control_start", 0.0),
        control_guidance_end=asked.get("control_end", 1.0),
    )
    assert_equal(ours(tiny, asked, [picture(3)], negative), theirs)


def offering(model: FluxModel, **controls: ControlInfo) -> FluxModel:
    return replace(model, info=model.info.model_copy(update={"controls": controls}))


SEVERAL = {
    "steps": 6,
    "control_scale": 0.7,
    "control_end": 0.8,
    "controls": (ControlParams(name="depth", scale=0.4, start=0.3),),
}
"""`upscale` and `depth`, with scales and windows of their own."""

THEIR_SEVERAL = {
    "num_inference_steps": 6,
    "guidance_scale": 3.5,
    "controlnet_conditioning_scale": [0.7, 0.4],
    "control_guidance_start": [0.0, 0.3],
    "control_guidance_end": [0.8, 1.0],
}


def test_two_controlnets_equal_the_pipeline_with_both(union: FluxModel) -> None:
    pictures = [picture(3), picture(4)]
    both = FluxMultiControlNetModel([union.controlnets["controlnet"], union.controlnets["union"]])
    theirs = pipelines(union, both, pictures, control_mode=[None, 1], **THEIR_SEVERAL)
    model = offering(union, upscale=MAIN, depth=WITH["depth"])
    assert_equal(ours(model, SEVERAL, pictures, None), theirs)
    other_mode = offering(union, upscale=MAIN, depth=WITH["pose"])
    assert (ours(other_mode, SEVERAL, pictures, None) - theirs).abs().max() > 1e-3


def test_one_union_with_two_modes_equals_the_pipeline_that_loops(union: FluxModel) -> None:
    pictures = [picture(3), picture(4)]
    alone = FluxMultiControlNetModel([union.controlnets["union"]])
    theirs = pipelines(union, alone, pictures, control_mode=[2, 1], **THEIR_SEVERAL)
    main = ControlInfo(picture="source", component="union", mode=2)
    model = offering(union, upscale=main, depth=WITH["depth"])
    assert_equal(ours(model, SEVERAL, pictures, None), theirs)


@pytest.mark.parametrize("mode", [0, 2])
def test_one_union_with_one_mode_equals_the_pipeline(union: FluxModel, mode: int) -> None:
    module = union.controlnets["union"]
    theirs = pipelines(
        union,
        module,
        [picture(3)],
        control_mode=mode,
        num_inference_steps=3,
        guidance_scale=3.5,
        controlnet_conditioning_scale=0.6,
    )
    model = offering(union, upscale=ControlInfo(picture="source", component="union", mode=mode))
    assert_equal(ours(model, {"steps": 3}, [picture(3)], None), theirs)


def test_packing_equals_the_pipelines(tiny: FluxModel) -> None:
    latents = torch.randn(2, 16, 8, 12)
    theirs = FluxControlNetPipeline._pack_latents(latents, 2, 16, 8, 12)
    assert torch.equal(pack(latents), theirs)
    assert torch.equal(unpack(pack(latents), 8, 12), latents)


@pytest.mark.parametrize(
    "change", [{"control_scale": 0.0}, {"guidance_scale": 9.5}, {"true_cfg_scale": 2.0}], ids=str
)
def test_each_word_of_the_cases_matters_to_this_model(
    tiny: FluxModel, negative: Prompt, change: dict[str, float]
) -> None:
    """Else the cases above would prove nothing."""
    asked = {"steps": 2, "negative_prompt": "blurry"}
    base = ours(tiny, asked, [picture(3)], negative)
    assert (ours(tiny, asked | change, [picture(3)], negative) - base).abs().max() > 1e-2
