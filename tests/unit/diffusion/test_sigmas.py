"""Noise levels and the control window are the pipeline's; less strength starts lower."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux_controlnet import calculate_shift, retrieve_timesteps
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.diffusion.sigmas import control_scales, make_sigmas

CONFIGS: dict[str, dict[str, Any]] = {
    "dynamic": {"use_dynamic_shifting": True},
    "dynamic, other points": {
        "use_dynamic_shifting": True,
        "base_image_seq_len": 64,
        "max_image_seq_len": 1024,
        "base_shift": 0.3,
        "max_shift": 2.0,
    },
    "static": {"use_dynamic_shifting": False, "shift": 3.0},
    "no shift": {"use_dynamic_shifting": False, "shift": 1.0},
}


def pipeline_sigmas(config: dict[str, Any], steps: int, tokens: int) -> list[float]:
    """What `FluxControlNetPipeline.__call__` does."""
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    mu = calculate_shift(
        tokens,
        scheduler.config.get("base_image_seq_len", 256),
        scheduler.config.get("max_image_seq_len", 4096),
        scheduler.config.get("base_shift", 0.5),
        scheduler.config.get("max_shift", 1.15),
    )
    retrieve_timesteps(scheduler, steps, "cpu", sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return [float(sigma) for sigma in scheduler.sigmas]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("steps", [1, 2, 8, 28])
@pytest.mark.parametrize("tokens", [4, 256, 1024, 4096])
def test_at_full_strength_they_are_the_pipelines(config: dict[str, Any], steps: int, tokens: int):
    sigmas = make_sigmas(config, steps, strength=1, tokens=tokens)
    assert sigmas == pipeline_sigmas(config, steps, tokens)
    assert sigmas[0] == 1


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 100), st.floats(0.01, 1), st.floats(0.01, 1))
def test_less_strength_starts_lower_with_as_many_steps(
    config: dict[str, Any], steps: int, one: float, other: float
):
    weak = make_sigmas(config, steps, min(one, other), tokens=1024)
    strong = make_sigmas(config, steps, max(one, other), tokens=1024)
    assert len(weak) == len(strong) == steps + 1
    assert 0 < weak[0] <= strong[0] <= 1
    assert weak[-1] == strong[-1] == 0
    assert all(high > low for high, low in pairwise(weak))


def test_without_a_shift_the_first_level_is_the_strength():
    assert make_sigmas(CONFIGS["no shift"], 4, 0.5, tokens=64) == [0.5, 0.375, 0.25, 0.125, 0]


def test_more_tokens_shift_towards_more_noise():
    few, many = (make_sigmas(CONFIGS["dynamic"], 4, 1, tokens) for tokens in (256, 4096))
    assert all(low < high for low, high in zip(few[1:-1], many[1:-1], strict=True))


def controlnet_keep(steps: int, start: float, end: float) -> list[float]:
    """The pipeline's own words."""
    return [1.0 - float(i / steps < start or (i + 1) / steps > end) for i in range(steps)]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 100), st.floats(0, 2), st.floats(0, 1), st.floats(0, 1))
def test_the_control_window_is_the_pipelines(steps: int, scale: float, start: float, end: float):
    expected = [scale * keep for keep in controlnet_keep(steps, start, end)]
    assert control_scales(steps, scale, start, end) == expected


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((0, 1), [1, 1, 1, 1]),
        ((0.5, 1), [0, 0, 1, 1]),
        ((0, 0.5), [1, 1, 0, 0]),
        ((0.3, 0.7), [0, 0, 0, 0]),
    ],
)
def test_control_acts_at_whole_steps_inside_the_window(
    window: tuple[float, float], expected: list[float]
):
    assert control_scales(4, 1.0, *window) == expected
