"""The count of a step equals what torch counts, and FLUX.1-dev's is the published one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FluxControlNetModel, FluxTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from serve_app.models.flops import image_tokens, step_flop
from tests.tiny_flux import FLUX_SHAPE

FLUX_DEV = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
}
UPSCALER = FLUX_DEV | {"num_layers": 5, "num_single_layers": 0}


@pytest.mark.parametrize(("tile_px", "tflop"), [(512, 23.5), (768, 45.8), (1024, 81.3)])
def test_flux_and_its_upscaler_cost_what_is_published(tile_px: int, tflop: float):
    counted = step_flop(FLUX_DEV, [UPSCALER], image_tokens(tile_px, tile_px, 16), 512)
    assert counted / 1e12 == pytest.approx(tflop, rel=0.005)


def counted_by_torch(network: Any, tokens: int, text_tokens: int, **inputs: Any) -> int:
    shape = network.config
    counter = FlopCounterMode(display=False)  # it knows attention as the products that it is
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        network(
            hidden_states=torch.randn(1, tokens, shape.in_channels),
            encoder_hidden_states=torch.randn(1, text_tokens, shape.joint_attention_dim),
            pooled_projections=torch.randn(1, shape.pooled_projection_dim),
            timestep=torch.ones(1),
            guidance=torch.ones(1) if shape.guidance_embeds else None,
            img_ids=torch.zeros(tokens, 3),
            txt_ids=torch.zeros(text_tokens, 3),
            **inputs,
        )
    return counter.get_total_flops()


@pytest.mark.parametrize("guidance_embeds", [True, False])
@pytest.mark.parametrize("num_mode", [None, 3])
def test_the_count_is_torchs(guidance_embeds: bool, num_mode: int | None):
    shape = FLUX_SHAPE | {"guidance_embeds": guidance_embeds}
    transformer = FluxTransformer2DModel(**shape)
    controlnet = FluxControlNetModel(**shape | {"num_layers": 1, "num_mode": num_mode})
    mode = None if num_mode is None else torch.zeros(1, 1, dtype=torch.long)
    picture = torch.randn(1, 64, transformer.config.in_channels)
    alone = counted_by_torch(transformer, 64, 8)
    beside = counted_by_torch(controlnet, 64, 8, controlnet_cond=picture, controlnet_mode=mode)
    assert step_flop(transformer.config, [], 64, 8) == alone
    both = step_flop(transformer.config, [controlnet.config] * 2, 64, 8)
    assert both == alone + 2 * beside
