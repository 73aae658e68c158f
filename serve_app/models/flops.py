"""Counts the floating-point operations of a step from the networks' configurations, without loading them.

Matrix products and attention alone, a multiplication and an addition being two; the rest is below a hundredth.
It is what a plan promises and what achieved TFLOP/s are measured against, whatever was skipped or cached.
Source: the shapes of diffusers 0.42, `FluxTransformer2DModel` and `FluxControlNetModel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TIME_CHANNELS = 256  # of the sinusoidal embedding of t and of the guidance
_BLOCK = 12  # weights of a block's products in units of width^2: attention 4, MLP 8; single and double alike

Config = Mapping[str, Any]


def step_flop(
    transformer: Config, controlnets: Sequence[Config], tokens: int, text_tokens: int
) -> int:
    """Operations of one denoising step of one tile.

    Args:
        transformer: Configuration of the `FluxTransformer2DModel`.
        controlnets: Configuration of each `FluxControlNetModel` that runs, twice where it runs twice.
        tokens: Image tokens of the tile, see `image_tokens`.
        text_tokens: Length of the prompt's sequence.
    """
    width, channels = _width(transformer), int(transformer["in_channels"])
    out = 2 * width * (int(transformer.get("out_channels") or channels) * tokens + 2 * width)
    return (
        _trunk(transformer, tokens, text_tokens)
        + out
        + sum(_controlnet(config, tokens, text_tokens) for config in controlnets)
    )


def image_tokens(height_px: int, width_px: int, align_px: int) -> int:
    """Tokens of a tile; one covers a square of `ModelInfo.align_px`."""
    return (height_px // align_px) * (width_px // align_px)


def _controlnet(config: Config, tokens: int, text_tokens: int) -> int:
    width = _width(config)
    mode = int(config.get("num_mode") is not None)  # a ControlNet-Union's mode is a text token more
    blocks = int(config["num_layers"]) + int(config["num_single_layers"])
    residuals = 2 * width**2 * tokens * blocks
    picture = 2 * int(config["in_channels"]) * width * tokens
    mode_projection = (
        2 * int(config["joint_attention_dim"]) * width * mode
    )  # it comes in the right width
    return _trunk(config, tokens, text_tokens + mode) + picture + residuals - mode_projection


def _trunk(config: Config, tokens: int, text_tokens: int) -> int:
    """Embeddings and blocks, which both networks have."""
    width = _width(config)
    length = tokens + text_tokens
    double, single = int(config["num_layers"]), int(config["num_single_layers"])
    block = 2 * _BLOCK * width**2 * length + 4 * length**2 * width
    modulations = 2 * width**2 * (12 * double + 3 * single)
    scalars = 2 if config.get("guidance_embeds") else 1
    conditions = (
        2
        * width
        * (scalars * (_TIME_CHANNELS + width) + int(config["pooled_projection_dim"]) + width)
    )
    embeds = (
        2
        * width
        * (int(config["in_channels"]) * tokens + int(config["joint_attention_dim"]) * text_tokens)
    )
    return block * (double + single) + modulations + conditions + embeds


def _width(config: Config) -> int:
    return int(config["num_attention_heads"]) * int(config["attention_head_dim"])
