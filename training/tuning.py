"""Train on pixels through the frozen decoder, and keep flow matching alive beside it.

Flow matching asks for latents; what is judged is pixels after back-projection, and the first step
from pure noise decides them. So each step of this phase has two parts: one step from pure noise,
decoded, back-projected and compared with the original; and flow matching on cached latents below
pure noise, so that more steps go on working. The decoder is frozen: an earlier trial that moved it
lost half a decibel of the autoencoder. In a last stretch a critic asks for sharpness.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.critic import Adversary
from training.examples import SCALES, SIZE_PX, Example, Resampler, make_example
from training.flow import draw_rows
from training.losses import pixel_loss
from training.networks import FluxPair
from training.pairs import Pairs, encode
from training.sampling import decode
from training.trainer import OnSave, Trainer

_ROWS = 6
_FLOW_ROWS = 6
_FLOW_WEIGHT = 0.15
_BARE_WEIGHT = 0.5
_WARMUP = 50
_EMA_DECAY = 0.995
_SAVE_EVERY = 100
_LOG_EVERY = 25
_ROUNDS = 3


@dataclass(frozen=True)
class Phase:
    """One stretch of training on pixels.

    Attributes:
        name: of its checkpoint and in the log.
        rates: peak learning rates of the blocks' matrices and of everything else.
        adversary: whether a critic has a say.
    """

    name: str
    rates: tuple[float, float]
    adversary: bool


PIXELS = Phase("pixels", (8e-4, 5e-4), adversary=False)
SHARPEN = Phase("sharpen", (2.5e-4, 2e-4), adversary=True)


@dataclass(frozen=True)
class Data:
    """What the phase learns from: crops (n, height, width, 3), cached pairs, frozen autoencoder."""

    crops: NDArray[np.uint8]
    pairs: Pairs
    autoencoder: AutoencoderTiny


def tune(
    pair: FluxPair, data: Data, phase: Phase, steps: int, seed: int, folder: Path, on_save: OnSave
) -> FluxPair:
    """Train on pixels and on latents, going on from the last checkpoint where there is one.

    Args:
        pair: networks of the phase before; changed in place.
        data: what to learn from.
        phase: rates, and whether a critic has a say.
        steps: optimiser steps in all.
        seed: of crops and noise.
        folder: where the checkpoint is kept.
        on_save: called with averaged networks and the step at every checkpoint.

    Returns:
        The networks with averaged weights.
    """
    data.autoencoder.requires_grad_(False).to(memory_format=torch.channels_last)
    resamplers = {scale: Resampler(SIZE_PX, scale) for scale in set(SCALES)}
    path = folder / f"{phase.name}.pt"
    trainer = Trainer(pair, path, steps, phase.rates, _WARMUP, _EMA_DECAY, _SAVE_EVERY)
    adversary = Adversary() if phase.adversary else None
    if adversary is not None and trainer.extra is not None:
        adversary.restore(trainer.extra)
    log = _Log(phase.name)
    for step in range(trainer.begin, steps):
        rng = np.random.default_rng((seed, step))
        torch.manual_seed(seed * 1_000_003 + step)
        trainer.begin_step(step)
        resampler = resamplers[int(rng.choice(SCALES))]
        example = make_example(data.crops, _ROWS, resampler, rng)
        ours, judged = _learn_pixels(pair, data.autoencoder, resampler, example, adversary)
        flow = _flow_loss(pair, data.pairs)
        torch.autograd.backward(_FLOW_WEIGHT * flow)
        trainer.finish_step(step, on_save, adversary.state() if adversary else None)
        plain = resampler.backproject(example.control, example.source, _ROUNDS)
        rival = float((plain - example.wanted).abs().mean())
        log.add(step, (ours, rival, float(flow.detach()), judged))
    return trainer.averaged()


def _learn_pixels(
    pair: FluxPair,
    autoencoder: AutoencoderTiny,
    resampler: Resampler,
    example: Example,
    adversary: Adversary | None,
) -> tuple[float, float]:
    """Leave the gradients of one step from pure noise; returns absolute error and critic's loss."""
    decoded = _from_noise(pair, autoencoder, example)
    made = resampler.backproject(decoded, example.source, _ROUNDS)
    loss, absolute = pixel_loss(made, example.wanted)
    judged = 0.0
    if adversary is not None:
        judged = adversary.learn(example.original, made, example.control)
        loss = loss + adversary.objection(
            example.original, made, example.control, example.guidance, loss
        )
    # Back-projection would hide errors of colour and brightness; it must not be needed for them.
    loss = loss + _BARE_WEIGHT * (decoded - example.wanted).abs().mean()
    torch.autograd.backward(loss)
    return float(absolute), judged


def _from_noise(pair: FluxPair, autoencoder: AutoencoderTiny, example: Example) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        latents = encode(autoencoder, example.control)
        noise = torch.randn_like(latents)
        velocity = pair(noise, latents, torch.ones(len(noise)), example.guidance)
        decoded = decode(autoencoder, noise - velocity)
    return decoded.float()


def _flow_loss(pair: FluxPair, pairs: Pairs) -> Tensor:
    rows = draw_rows(pairs, _FLOW_ROWS, torch.default_generator, pure_noise_share=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = pair(rows.noisy, rows.control, rows.sigma, rows.guidance)
    return functional.mse_loss(velocity.float(), rows.velocity)


class _Log:
    """Prints means of: our error, plain resizing's (back-projected too), flow's, the critic's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.monotonic()
        self.rows: list[tuple[float, ...]] = []

    def add(self, step: int, row: tuple[float, ...]) -> None:
        self.rows.append(row)
        if len(self.rows) == _LOG_EVERY:
            ours, rival, flow, judged = np.mean(self.rows, axis=0)
            print(
                f"{self.name} {step + 1}: error {ours:.4f}, {ours / rival:.3f} of plain resizing's; "
                f"flow {flow:.3f}; critic {judged:.3f}; {time.monotonic() - self.began:.0f} s",
                flush=True,
            )
            self.rows.clear()
