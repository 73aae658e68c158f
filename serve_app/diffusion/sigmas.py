"""Noise levels: which sigmas a tile's steps go through, and at which of them the ControlNet acts.

Source: diffusers 0.42, `FluxControlNetPipeline.__call__` and `FlowMatchEulerDiscreteScheduler.set_timesteps`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler


def make_sigmas(config: dict[str, Any], steps: int, strength: float, tokens: int) -> list[float]:
    """The noise levels of a tile.

    At strength 1 these are the pipeline's own. Below, the same number of steps starts at `strength` before
    the shift, so `steps` always means steps.

    Args:
        config: The scheduler's configuration.
        steps: Denoising steps, 1 or more.
        strength: Above 0, up to 1.
        tokens: Image tokens of a tile; the dynamic shift depends on them.

    Returns:
        steps + 1 falling values; the last is 0.
    """
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    sigmas = np.linspace(strength, strength / steps, steps)
    scheduler.set_timesteps(sigmas=sigmas, mu=_shift(scheduler.config, tokens))
    return [float(sigma) for sigma in scheduler.sigmas]


def _shift(config: Any, tokens: int) -> float:
    """The dynamic shift: a straight line through the configuration's two points (tokens, shift)."""
    least, most = config.base_image_seq_len, config.max_image_seq_len
    slope = (config.max_shift - config.base_shift) / (most - least)
    return float(config.base_shift + slope * (tokens - least))


def control_scales(steps: int, scale: float, start: float, end: float) -> list[float]:
    """The ControlNet's scale at each step: `scale` inside the window, else 0.

    Args:
        steps: Denoising steps.
        scale: `control_scale`.
        start: Fraction of the steps at which control begins.
        end: Fraction at which it ends.
    """
    return [
        0.0 if step / steps < start or (step + 1) / steps > end else scale for step in range(steps)
    ]
