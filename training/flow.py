"""Teach the transformer and its ControlNet by flow matching on cached latents.

A row is a pair (original, control), a noise level and a guidance. The network learns the straight
path's velocity, noise minus picture. Many rows stand at pure noise, where few-step sampling begins.
Guidance is a knob for detail that is trained in: above its neutral value the picture to reach
exaggerates what the original has and the control lacks, below it holds some of that back.
Source: Lipman et al. 2022 (flow matching); Meng et al. 2022 (guidance as an input).
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.networks import FluxPair
from training.pairs import Pairs
from training.start import FitBatch, build_networks, fit
from training.trainer import OnSave, Trainer

GUIDANCE_NEUTRAL = 3.5
GUIDANCE_RANGE = (1.0, 8.0)
GUIDANCE_GAIN = 0.06  # exaggeration of detail per unit of guidance
_PURE_NOISE_SHARE = 0.4
_BATCH = 16
_FIT_ROWS = 160
_RATES = (1e-3, 7e-4)  # peak, of the blocks' matrices and of everything else
_LOG_EVERY = 50
_WARMUP = 200
_EMA_DECAY = 0.998
_SAVE_EVERY = 250


@dataclass(frozen=True)
class Rows:
    """One training batch; see :class:`training.start.FitBatch` for the shapes."""

    noisy: Tensor
    control: Tensor
    sigma: Tensor
    guidance: Tensor
    velocity: Tensor


def draw_rows(
    pairs: Pairs,
    size: int,
    generator: torch.Generator,
    pure_noise_share: float = _PURE_NOISE_SHARE,
) -> Rows:
    """Draw a batch of noised pairs.

    Args:
        pairs: cached latents.
        size: rows in the batch.
        generator: of every random choice.
        pure_noise_share: share of the rows that stand at pure noise.

    Returns:
        The batch, float32.
    """
    picks = torch.randint(len(pairs.originals), (size,), generator=generator)
    original, control = pairs.originals[picks].float(), pairs.controls[picks].float()
    low, high = GUIDANCE_RANGE
    guidance = low + (high - low) * torch.rand(size, generator=generator)
    sigma = torch.sigmoid(0.3 + torch.randn(size, generator=generator))
    sigma[: round(size * pure_noise_share)] = 1.0
    wanted = exaggerate(original, control, guidance)
    noise = torch.randn(original.shape, generator=generator)
    level = sigma[:, None, None, None]
    return Rows((1 - level) * wanted + level * noise, control, sigma, guidance, noise - wanted)


def exaggerate(original: Tensor, control: Tensor, guidance: Tensor) -> Tensor:
    """The picture to reach at a guidance: the original, with its own detail weighed."""
    weight = GUIDANCE_GAIN * (guidance - GUIDANCE_NEUTRAL)
    return original + weight[:, None, None, None] * (original - control)


def train_flow(pairs: Pairs, steps: int, seed: int, folder: Path, on_save: OnSave) -> FluxPair:
    """Train by flow matching, going on from the last checkpoint where there is one.

    Args:
        pairs: cached latents.
        steps: optimiser steps in all.
        seed: of starts, batches and noise.
        folder: where the checkpoint is kept.
        on_save: called with averaged networks and the step whenever a checkpoint is written.

    Returns:
        The networks with averaged weights.
    """
    pair = build_networks(seed)
    path = folder / "flow.pt"
    if not path.exists():
        first = draw_rows(pairs, _FIT_ROWS, torch.Generator().manual_seed(seed))
        error = fit(pair, FitBatch(**vars(first)))
        print(f"flow: fitted start, error {error:.4f}", flush=True)
    trainer = Trainer(pair, path, steps, _RATES, _WARMUP, _EMA_DECAY, _SAVE_EVERY)
    began, shown = time.monotonic(), _Shown()
    for step in range(trainer.begin, steps):
        rows = draw_rows(pairs, _BATCH, torch.Generator().manual_seed(seed * 1_000_003 + step))
        trainer.begin_step(step)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = pair(rows.noisy, rows.control, rows.sigma, rows.guidance)
        errors = (velocity.float() - rows.velocity).square().mean(dim=(1, 2, 3))
        torch.autograd.backward(errors.mean())
        trainer.finish_step(step, on_save)
        shown.add(rows, errors.detach())
        if step % _LOG_EVERY == _LOG_EVERY - 1:
            print(f"flow {step + 1}: {shown}; {time.monotonic() - began:.0f} s", flush=True)
            shown = _Shown()
    return trainer.averaged()


class _Shown:
    """Mean errors since the last line of the log: at pure noise (against the control's) and below."""

    def __init__(self) -> None:
        self.sums = np.zeros(3)
        self.count = 0

    def add(self, rows: Rows, errors: Tensor) -> None:
        pure = rows.sigma == 1.0
        plain = (rows.noisy - rows.control - rows.velocity).square().mean(dim=(1, 2, 3))
        self.sums += [
            float(errors[pure].mean()),
            float(plain[pure].mean()),
            float(errors[~pure].mean()),
        ]
        self.count += 1

    def __str__(self) -> str:
        pure, plain, below = self.sums / max(1, self.count)
        return f"pure noise {pure:.4f} ({pure / plain:.3f} of the control's), below {below:.4f}"
