"""Train the autoencoder: 4 x 4 pixels to 16 numbers and back.

It starts from the linear map of :mod:`training.autoencoder_start`.
"""

import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training import checkpoint
from training.autoencoder_start import build_autoencoder

_BATCH = 12
_CROP_PX = 96
_PEAK_RATE = 1.5e-3
_ENCODER_RATE = 0.3  # of the peak: the latent space should settle early
_LATENT_NOISE = 0.04
_EMA_DECAY = 0.998
_SAVE_EVERY = 500


def train_autoencoder(
    crops: NDArray[np.uint8], steps: int, seed: int, folder: Path
) -> AutoencoderTiny:
    """Train the autoencoder, going on from the last checkpoint where there is one.

    Args:
        crops: training crops, shape (n, height, width, 3).
        steps: optimiser steps in all.
        seed: of crops, flips and noise.
        folder: where the checkpoint is kept.

    Returns:
        The autoencoder with averaged weights and its latents' shift and scale measured.
    """
    torch.manual_seed(seed)
    model = build_autoencoder(crops).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        [
            {"params": model.encoder.parameters(), "lr": _PEAK_RATE * _ENCODER_RATE},
            {"params": model.decoder.parameters(), "lr": _PEAK_RATE},
        ],
        betas=(0.9, 0.99),
        weight_decay=1e-4,
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = checkpoint.Average(model, _EMA_DECAY)
    path = folder / "autoencoder.pt"
    begin = _resume(path, model, optimizer, average)
    started = time.monotonic()
    for step in range(begin, steps):
        rng = np.random.default_rng((seed, step))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * checkpoint.learning_rate(step, steps)
        pixels = _batch(crops, rng)
        loss = reconstruction_loss(model, pixels)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        if step % 100 == 0:
            print(
                f"autoencoder {step} loss {loss.item():.4f} {time.monotonic() - started:.0f} s",
                flush=True,
            )
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            checkpoint.save(
                path,
                {
                    "step": step + 1,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.weights,
                },
            )
    model.load_state_dict(average.weights)
    measure_latents(model, crops)
    return model.eval()


def _resume(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: checkpoint.Average
) -> int:
    state = checkpoint.load(path)
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    average.weights, average.updates = state["average"], state["step"]
    return int(state["step"])


def reconstruction_loss(model: AutoencoderTiny, pixels: Tensor) -> Tensor:
    """L1 of pixels and of their differences, with a penalty on latents that the decoder squashes."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.encode(pixels).latents
        noisy = latents + _LATENT_NOISE * torch.randn_like(latents)
        decoded = model.decode(noisy).sample
    error = decoded.float() - pixels
    gradient = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    excess = (latents.float().abs() - 2.5).clamp_min(0).square().mean()
    loss: Tensor = error.abs().mean() + 0.5 * gradient + 0.1 * excess
    return loss


@torch.no_grad()
def measure_latents(model: AutoencoderTiny, crops: NDArray[np.uint8]) -> None:
    """Write the latents' mean and inverse deviation into the config as shift and scaling factor."""
    pixels = torch.cat([to_tensor(crops[index : index + 1]) for index in range(0, len(crops), 40)])
    latents = torch.cat([model.encode(part).latents for part in torch.split(pixels, 16)])
    scale = round(1.0 / float(latents.std()), 4)
    model.register_to_config(shift_factor=round(float(latents.mean()), 4), scaling_factor=scale)
    model.scaling_factor = scale


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Turn (n, height, width, 3) bytes into (n, 3, height, width) floats of -1 to 1."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
    return tensor.float().div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)


def _batch(crops: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    picks = rng.integers(0, len(crops), _BATCH)
    top, left = rng.integers(0, crops.shape[1] - _CROP_PX + 1, 2)
    pixels = np.stack([crops[pick, top : top + _CROP_PX, left : left + _CROP_PX] for pick in picks])
    if rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    if rng.random() < 0.5:
        pixels = pixels.transpose(0, 2, 1, 3)
    return to_tensor(pixels)


def psnr(first: Tensor, second: Tensor) -> float:
    """Peak signal-to-noise ratio of two tensors of values -1 to 1, in decibels."""
    error = functional.mse_loss(first.clamp(-1, 1), second).item()
    return 10 * float(np.log10(4.0 / error))
