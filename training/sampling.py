"""Upscale a picture with a model folder in a few plain lines, for measuring during training.

The service has its own engine; this loop repeats its arithmetic without its machinery, so that a
checkpoint can be judged before anything serves it.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderTiny,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxTransformer2DModel,
)
from numpy.typing import NDArray
from torch import Tensor

from serve_app.resample import resize
from training.config import LATENT_CHANNELS, VAE_SCALE
from training.networks import FluxPair
from training.pairs import encode

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
        steps: denoising steps.
        guidance: detail guidance.
        control_scale: weight of the ControlNet.
        tile_px: side of a tile, in output pixels.
        overlap_px: least overlap of neighbouring tiles.
        seed: of the noise field.
    """

    steps: int
    guidance: float = 3.5
    control_scale: float = 1.0
    tile_px: int = 272
    overlap_px: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Model:
    """The parts of a model folder, float32, in evaluation mode."""

    autoencoder: AutoencoderTiny
    pair: FluxPair
    scheduler: FlowMatchEulerDiscreteScheduler


def load(folder: Path) -> Model:
    """Load a model folder for the CPU in float32."""
    return Model(
        AutoencoderTiny.from_pretrained(folder / "vae", dtype=torch.float32).eval(),
        FluxPair(
            FluxTransformer2DModel.from_pretrained(folder / "transformer", dtype=torch.float32),
            FluxControlNetModel.from_pretrained(folder / "controlnet", dtype=torch.float32),
        ).eval(),
        FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
    )


@torch.no_grad()
def denoise(model: Model, control: Tensor, noise: Tensor, settings: Settings) -> Tensor:
    """Run all steps on a batch of control latents; returns normalised latents of the same shape."""
    count = settings.steps
    model.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / count, count).tolist())
    sigmas = model.scheduler.sigmas
    rows = len(control)
    guidance = torch.full((rows,), settings.guidance)
    latents = noise
    for begin, end in itertools.pairwise(sigmas):
        velocity = model.pair(
            latents, control, begin.expand(rows), guidance, settings.control_scale
        )
        latents = latents + (end - begin) * velocity
    return latents


@torch.no_grad()
def upscale(model: Model, source: Picture, height: int, width: int, settings: Settings) -> Picture:
    """Upscale a source in feathered tiles, without any correction afterwards.

    Args:
        model: the parts of a model folder.
        source: shape (h, w, 3), values 0 to 1.
        height: of the result, pixels, at least a tile's.
        width: of the result, pixels, at least a tile's.
        settings: how to sample.

    Returns:
        Picture of shape (height, width, 3), about 0 to 1, not clipped.
    """
    canvas = np.clip(resize(source, height, width), 0, 1)
    canvas = np.asarray(np.round(canvas * 255) / 255, np.float32)
    generator = torch.Generator().manual_seed(settings.seed)
    field = torch.randn(
        1, LATENT_CHANNELS, height // VAE_SCALE + 2, width // VAE_SCALE + 2, generator=generator
    )
    total = np.zeros((height, width, 3), np.float64)
    weights = np.zeros((height, width, 1), np.float64)
    side, cells = settings.tile_px, settings.tile_px // VAE_SCALE
    window = _window(side, settings.overlap_px)
    for top in _starts(height, side, settings.overlap_px):
        for left in _starts(width, side, settings.overlap_px):
            tile = canvas[top : top + side, left : left + side]
            pixels = torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))[None] * 2 - 1
            control = encode(model.autoencoder, pixels.float())
            y, x = top // VAE_SCALE, left // VAE_SCALE
            latents = denoise(model, control, field[:, :, y : y + cells, x : x + cells], settings)
            decoded = decode(model.autoencoder, latents)[0].permute(1, 2, 0).numpy() / 2 + 0.5
            total[top : top + side, left : left + side] += decoded * window
            weights[top : top + side, left : left + side] += window
    return np.asarray(total / weights, np.float32)


def decode(autoencoder: AutoencoderTiny, latents: Tensor) -> Tensor:
    """Decode normalised latents into pixels of about -1 to 1."""
    raw = latents / autoencoder.config.scaling_factor + autoencoder.config.shift_factor
    decoded: Tensor = autoencoder.decode(raw).sample
    return decoded


def _starts(length: int, side: int, overlap: int) -> list[int]:
    last = length - side
    return sorted({*range(0, last, side - overlap), last}) if last > 0 else [0]


def _window(side: int, overlap: int) -> NDArray[np.float64]:
    ramp = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)) / (overlap + 1)
    edge = np.clip(ramp, 0, 1)
    return np.asarray(edge[:, None, None] * edge[None, :, None])
