"""What the phases of the transformer's training share: rates, averaging, checkpoints, going on.

A phase computes gradients; a :class:`Trainer` applies them. It knows no data and no loss.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training import checkpoint
from training.networks import FluxPair
from training.start import build_networks

_CLIP = 1.0
OnSave = Callable[[FluxPair, int], None]


class Trainer:
    """Optimisers, averaged weights and checkpoints of one phase.

    Args:
        pair: the networks; changed in place.
        path: the checkpoint; where it exists, the phase goes on from it.
        steps: optimiser steps of the whole phase.
        rates: peak learning rates of the blocks' matrices and of everything else.
        warmup: steps of rising rates.
        ema_decay: of the averaged weights.
        save_every: steps between checkpoints.

    Attributes:
        begin: the first step to do.
        extra: what :meth:`finish_step` was given to keep, as the checkpoint had it.
    """

    def __init__(
        self,
        pair: FluxPair,
        path: Path,
        steps: int,
        rates: tuple[float, float],
        warmup: int,
        ema_decay: float,
        save_every: int,
    ) -> None:
        self.pair, self.path, self.steps = pair, path, steps
        self.warmup, self.save_every = warmup, save_every
        self.rates = rates
        self.optimizers = build_optimizers(pair, *rates)
        self.average = checkpoint.Average(pair, ema_decay)
        self.begin = 0
        self.extra: Any = None
        state = checkpoint.load(path)
        if state is not None:
            self._restore(state)

    def begin_step(self, step: int) -> None:
        """Set the learning rates and clear the gradients."""
        factor = checkpoint.learning_rate(step, self.steps, self.warmup)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.zero_grad(set_to_none=True)

    def finish_step(self, step: int, on_save: OnSave, extra: Any = None) -> None:
        """Apply the gradients; now and then write a checkpoint and call ``on_save``.

        Args:
            step: the step that was begun.
            on_save: called with averaged networks and the number of steps done.
            extra: further state for the checkpoint.
        """
        nn.utils.clip_grad_norm_(self.pair.parameters(), _CLIP)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.pair)
        done = step + 1
        if done % self.save_every and done != self.steps:
            return
        checkpoint.save(
            self.path,
            {
                "step": done,
                "model": self.pair.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "average": self.average.weights,
                "extra": extra,
            },
        )
        on_save(self.averaged(), done)

    def averaged(self) -> FluxPair:
        """Networks that carry the averaged weights, ready for use."""
        pair = build_networks(0)
        pair.load_state_dict(self.average.weights)
        return pair.eval()

    def _restore(self, state: dict[str, Any]) -> None:
        self.pair.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average.weights, self.average.updates = state["average"], state["step"]
        self.begin, self.extra = state["step"], state.get("extra")


def build_optimizers(
    pair: FluxPair, matrix_rate: float, other_rate: float
) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices that every image token passes, AdamW for all else.

    Source: Jordan et al. 2024 (Muon).
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in pair.named_parameters():
        inner = parameter.ndim == 2 and "blocks" in name and "controlnet_" not in name
        text = any(word in name for word in ("context", "add_", "norm"))
        (matrices if inner and not text else others).append(parameter)
    muon = torch.optim.Muon(
        matrices, lr=matrix_rate, weight_decay=0.01, ns_steps=4, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adamw]
