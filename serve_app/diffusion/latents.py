"""Between pixels, latents and tokens: encode, pack, noise, unpack, decode.

Source: diffusers 0.42, `FluxControlNetPipeline` (`_pack_latents`, `_unpack_latents`, the VAE's scaling).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from serve_app.levels import TOP_LEVEL, Levels
from serve_app.tiling.fields import noise
from serve_app.tiling.geometry import Tile

if TYPE_CHECKING:
    from serve_app.diffusion.loader import FluxModel

TOKEN_LATENTS = 2  # side of the square of latents that FLUX packs into one token


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Packs squares of latents into tokens: (B, C, H, W) to (B, H/2 * W/2, 4 C)."""
    batch, channels, height, width = latents.shape
    side = TOKEN_LATENTS
    split = latents.reshape(batch, channels, height // side, side, width // side, side)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undoes `pack`; height and width are those of the latents."""
    batch, side = tokens.shape[0], TOKEN_LATENTS
    split = tokens.reshape(batch, height // side, width // side, -1, side, side)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, height, width)


def token_ids(height: int, width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Each token's place for the rotary embedding: (H/2 * W/2, 3) of (0, row, column).

    Args:
        height: Of the latents.
        width: Of the latents.
        device: Where the ids are used.
        dtype: The model's.
    """
    rows = torch.arange(height // TOKEN_LATENTS)
    columns = torch.arange(width // TOKEN_LATENTS)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)
    return torch.nn.functional.pad(grid, (1, 0)).to(device, dtype)


@torch.inference_mode()
def encode_controls(model: FluxModel, controls: Sequence[Levels], size: int) -> torch.Tensor:
    """Encodes control pictures.

    Takes the posterior's mean, not a sample of it, so that a tile depends on its request alone.

    Args:
        model: The model.
        controls: Pictures of one size, each (H, W, 3) levels.
        size: So many at once, always: the last ones are filled up with repeats.

    Returns:
        Packed latents (B, tokens, channels) in float32.
    """

    def encoded(pictures: Sequence[Levels]) -> torch.Tensor:
        stacked = np.stack(pictures).astype(np.float32) * np.float32(2 / TOP_LEVEL) - 1
        pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(model.device, model.dtype)
        found = model.vae.encode(pixels)
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        config = model.vae.config
        return pack((latents.float() - config.shift_factor) * config.scaling_factor)

    filled = [*controls, *[controls[0]] * (-len(controls) % size)]
    batches = [encoded(filled[start : start + size]) for start in range(0, len(filled), size)]
    return torch.cat(batches)[: len(controls)]


@torch.inference_mode()
def decode_tiles(model: FluxModel, tokens: torch.Tensor, tile: Tile, size: int) -> torch.Tensor:
    """Decodes packed latents to pixels.

    Args:
        model: The model.
        tokens: (B, tokens, channels).
        tile: Any of the batch's tiles, px: they have one size.
        size: The batch is filled up to it with repeats; at least B.

    Returns:
        (B, H, W, 3) float32; about -1 to 1, unclipped, and NaN where the latents were.
    """
    rows = len(tokens)
    tokens = torch.cat([tokens, tokens[:1].expand(size - rows, -1, -1)])
    config = model.vae.config
    height, width = tile.height // model.vae_scale, tile.width // model.vae_scale
    latents = unpack(tokens.float(), height, width) / config.scaling_factor + config.shift_factor
    pixels: torch.Tensor = model.vae.decode(latents.to(model.dtype), return_dict=False)[0]
    return pixels[:rows].float().permute(0, 2, 3, 1)


def as_levels(pixels: torch.Tensor) -> list[Levels | None]:
    """Decoded pixels (B, H, W, 3) as levels, each (H, W, 3); None where there is a NaN or an infinity."""
    finite = pixels.isfinite().flatten(1).all(1).tolist()
    levels = ((pixels / 2 + 0.5).clamp(0, 1).nan_to_num() * TOP_LEVEL).round()
    arrays = levels.to(torch.int32).to(torch.uint16).cpu().numpy()
    return [array if good else None for array, good in zip(arrays, finite, strict=True)]


def starting_latents(
    model: FluxModel, source: torch.Tensor, tile: Tile, seed: int, sigma: float
) -> torch.Tensor:
    """The latents before the first step: the source's, noised to `sigma`; pure noise at 1.

    Args:
        model: The model.
        source: The tile's own packed latents, (tokens, channels) float32.
        tile: Where it lies on the canvas, px; the noise is a crop of the canvas's field.
        seed: Of the noise field.
        sigma: The first noise level, above 0, up to 1.

    Returns:
        (tokens, channels) float32.
    """
    field = noise(seed, tile.shrunk(model.vae_scale), model.latent_channels)
    packed = pack(torch.from_numpy(field)[None])[0].to(model.device)
    return packed if sigma >= 1 else sigma * packed + (1 - sigma) * source
