"""Keep a phase's state on disk, so that a training that was stopped goes on where it was."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    torch.save(state, draft)
    draft.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """Read a state, or None where there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    return state


def learning_rate(step: int, steps: int, warmup: int = 200, floor: float = 0.02) -> float:
    """Linear warm-up, then a cosine down to ``floor``, as a factor of the peak rate."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Average:
    """An exponential moving average of a module's weights.

    Args:
        module: whose weights are followed.
        decay: of the old average per step; early steps use a smaller one.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in module.state_dict().items()
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            self.weights[name].lerp_(value, 1 - decay)
