from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.fidelity.backprojection import backproject
from serve_app.fidelity.measures import lr_psnr
from serve_app.resample import resize


def scene(height, width, seed=0):
    """Smooth ground, hard edges and a little grain, within [0.1, 0.9]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ground = 0.5 + 0.2 * np.sin(x / 17 + seed) * np.cos(y / 23)
    boxes = 0.15 * ((x // 19 + y // 13) % 2)
    plane = ground + boxes + rng.normal(0, 0.02, (height, width))
    return np.clip(plane[:, :, None] * (1, 0.9, 0.8), 0.1, 0.9).astype(np.float32)


def drifted(truth, seed=0):
    """What a network may do to it: darker, another hue, and detail of its own."""
    noise = np.random.default_rng(seed).normal(0, 0.05, truth.shape)
    return np.clip(truth * (0.8, 0.9, 1.05) + noise, 0, 1).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(height=st.integers(8, 60), width=st.integers(8, 60), seed=st.integers(0, 9))
def test_three_rounds_at_four_times_pass_45_db(height, width, seed):
    truth = scene(4 * height, 4 * width, seed)
    source = resize(truth, height, width)
    result = drifted(truth, seed)
    before, after = lr_psnr(result, source), lr_psnr(backproject(result, source, 3), source)
    assert before < 30
    assert after > 45


@pytest.mark.parametrize("scale", [1.7, 2, 2.5, 3, 4, 6.3, 8])
def test_each_round_comes_nearer(scale):
    source = scene(40, 51)
    size = round(40 * scale), round(51 * scale)
    result = drifted(resize(source, *size))
    numbers = [lr_psnr(backproject(result, source, rounds), source) for rounds in range(4)]
    assert numbers == sorted(numbers)
    assert numbers[3] > numbers[0] + 10


@settings(deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 30),
    scale=st.floats(1, 8),
    seed=st.integers(0, 9),
)
def test_a_consistent_result_is_left_alone(height, width, scale, seed):
    rng = np.random.default_rng(seed)
    size = int(height * scale + 0.5), int(width * scale + 0.5)
    result = (0.2 + 0.6 * rng.random((*size, 3))).astype(np.float32)
    moved = backproject(result, resize(result, height, width), 3)
    np.testing.assert_allclose(moved, result, atol=3e-6)


def test_the_detail_that_the_source_cannot_show_is_kept():
    truth = scene(160, 160)
    source = resize(truth, 40, 40)
    checks = 0.05 * ((np.add.outer(np.arange(160), np.arange(160)) % 2) * 2 - 1)
    result = np.clip(truth + checks[:, :, None], 0, 1).astype(np.float32)
    kept = (backproject(result, source, 3) - truth)[8:-8, 8:-8, 0] * np.sign(checks[8:-8, 8:-8])
    assert kept.mean() == pytest.approx(0.05, abs=0.002)


def test_at_scale_one_the_result_stands():
    source = scene(30, 30)
    result = drifted(source)
    np.testing.assert_array_equal(backproject(result, source, 3), result)
    assert lr_psnr(result, source) < 30


def test_the_effect_grows_from_scale_one_to_two():
    source = scene(60, 60)
    gains = []
    for scale in (1.0, 1.25, 1.5, 1.75, 2.0):
        result = drifted(resize(source, round(60 * scale), round(60 * scale)))
        once = backproject(result, source, 1)
        gains.append(lr_psnr(once, source) - lr_psnr(result, source))
    assert gains[0] == 0
    assert gains == sorted(gains)
    half = backproject(
        np.full((90, 90, 3), 0.4, np.float32), np.full((60, 60, 3), 0.6, np.float32), 1
    )
    np.testing.assert_allclose(half, 0.5, atol=1e-6)  # 1.5 lies half way


def test_strength_is_the_share_of_one_round():
    dark, light = np.full((32, 32, 3), 0.2, np.float32), np.full((8, 8, 3), 0.6, np.float32)
    np.testing.assert_allclose(backproject(dark, light, 1, 0.5), 0.4, atol=1e-6)
    np.testing.assert_allclose(backproject(dark, light, 2, 0.5), 0.5, atol=1e-6)
    np.testing.assert_allclose(backproject(dark, light, 3, 0.0), 0.2)
    np.testing.assert_allclose(backproject(dark, light, 0), 0.2)


def test_the_result_is_clipped_and_the_input_is_not_touched():
    source = (scene(20, 20) > 0.5).astype(np.float32)
    result = resize(source, 80, 80)
    before = result.copy()
    moved = backproject(result, source, 2)
    np.testing.assert_array_equal(result, before)
    assert moved.min() == 0
    assert moved.max() == 1
    assert moved.dtype == np.float32


@pytest.mark.parametrize(("rounds", "strength"), [(-1, 1.0), (1, -0.1), (1, 1.1)])
def test_bad_numbers_are_refused(rounds, strength):
    with pytest.raises(ValueError, match="must be"):
        backproject(
            np.zeros((4, 4, 3), np.float32), np.zeros((2, 2, 3), np.float32), rounds, strength
        )
