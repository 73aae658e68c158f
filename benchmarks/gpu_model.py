"""FLUX.1-dev and its upscaler ControlNet at full size with random weights, made on the device from shapes.

Speed and memory do not depend on what the weights hold, so nothing is downloaded and no licence is needed. The
tiny shape runs the same code on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from serve_app.diffusion.acceleration import accelerate
from serve_app.diffusion.adapters import Adapters
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.prompts import Prompt
from serve_app.model_info import ModelInfo, ResidualCache
from serve_app.models.catalog import find_model, read_model_info
from serve_app.settings import EngineSettings

MODEL = "flux-dev-upscaler"
_CACHE_THRESHOLD = 0.15
_SPREAD = 0.02  # of random weights; keeps activations finite through 57 blocks
_SCHEDULER = {  # FLUX.1-dev's, which the number of steps and tokens alone go into
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}


@dataclass(frozen=True)
class Shape:
    """The sizes of a model's parts.

    Attributes:
        network: Of the transformer; also of the ControlNet but for its blocks.
        controlnet: The ControlNet's numbers of blocks.
        vae: Of the autoencoder.
        text_tokens: Length of the prompt.
        tiles_px: Sides of the tiles to be measured.
    """

    network: dict[str, Any]
    controlnet: dict[str, Any]
    vae: dict[str, Any]
    text_tokens: int
    tiles_px: tuple[int, ...]


FULL = Shape(
    network={"guidance_embeds": True},
    controlnet={"num_layers": 5, "num_single_layers": 0},
    vae={"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    text_tokens=512,
    tiles_px=(512, 768, 1024),
)
TINY = Shape(
    network={
        "guidance_embeds": True,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "axes_dims_rope": (4, 6, 6),
    },
    controlnet={"num_layers": 1, "num_single_layers": 0},
    vae={"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4},
    text_tokens=8,
    tiles_px=(64,),
)


def build(
    shape: Shape, engine: EngineSettings, device: torch.device, dtype: torch.dtype, tile_px: int
) -> FluxModel:
    """Makes a model and applies the settings to it, as loading one would.

    Raises:
        ConfigurationError: a setting that cannot be had here.
    """
    from diffusers import FluxControlNetModel, FluxTransformer2DModel

    torch.manual_seed(0)
    # offloaded networks are made where they stay; the full model would not fit
    home = torch.device("cpu") if engine.offload else device
    transformer = _made(FluxTransformer2DModel, shape.network, home, dtype)
    controlnet = _made(FluxControlNetModel, shape.network | shape.controlnet, home, dtype)
    vae = _vae(shape, device, dtype)
    config = transformer.config
    prompt = Prompt(
        torch.randn(1, shape.text_tokens, config.joint_attention_dim).to(device, dtype),
        torch.randn(1, config.pooled_projection_dim).to(device, dtype),
    )
    controlnets = {"controlnet": controlnet}
    adapters = Adapters(transformer, None)
    accelerate(transformer, controlnets, engine, device, prompt)
    return FluxModel(
        info=description(tile_px),
        transformer=transformer,
        controlnets=controlnets,
        adapters=adapters,
        vae=vae,
        scheduler_config=_SCHEDULER,
        null_prompt=prompt,
        vae_scale=2 ** (len(vae.config.block_out_channels) - 1),
        device=device,
        dtype=dtype,
        offloaded=engine.offload,
    )


def diffusers_pipeline(model: FluxModel) -> Any:
    """The model in diffusers' own pipeline, without text encoders."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlNetPipeline

    pipeline = FluxControlNetPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(model.scheduler_config),
        vae=model.vae,
        transformer=model.transformer,
        controlnet=next(iter(model.controlnets.values())),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def description(tile_px: int) -> ModelInfo:
    """The shipped model's, for another tile and with a cache's threshold."""
    info = read_model_info(find_model(MODEL))
    changes = {
        "tile_px": tile_px,
        "overlap_px": 0,
        "residual_cache": ResidualCache(threshold=_CACHE_THRESHOLD),
    }
    return info.model_copy(update=changes)


def _vae(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKL

    levels = len(shape.vae["block_out_channels"])
    common = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    }
    vae = _made(AutoencoderKL, common | shape.vae, device, dtype)
    return vae.to(memory_format=torch.channels_last)


def _made(kind: Any, shape: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            network = kind(**shape).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    for weight in network.parameters():
        if weight.ndim > 1:  # a ControlNet is born with zeros, and a zero may be skipped
            weight.normal_(std=_SPREAD)
    return network
