from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.choices import ColorFix
from serve_app.fidelity.backprojection import backproject
from serve_app.fidelity.correction import Correction
from serve_app.fidelity.measures import lr_psnr
from serve_app.levels import from_levels, to_levels
from serve_app.resample import resize

SIZES = [
    ((40, 51), (160, 204)),
    ((37, 23), (100, 62)),
    ((1, 1), (4, 4)),
    ((3, 90), (4, 117)),
    ((50, 60), (50, 60)),
    ((64, 20), (512, 160)),
    ((30, 40), (30, 57)),
]


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.random((max(height // 6, 1), max(width // 6, 1), 3), dtype=np.float32)
    grain = rng.normal(0, 0.03, (height, width, 3)).astype(np.float32)
    return np.clip(0.1 + 0.8 * resize(coarse, height, width) + grain, 0, 1)


def corrected(source, result, strength=1.0, rounds=3, color_fix=ColorFix.NONE):
    height, width = result.shape[:2]
    found = Correction(source, height, width, strength, rounds, color_fix)
    return np.concatenate(list(found.add(result)))


@pytest.mark.parametrize(("small", "large"), SIZES)
@pytest.mark.parametrize(("rounds", "strength"), [(0, 1.0), (1, 0.5), (3, 1.0)])
def test_rounds_on_the_small_grid_are_those_on_the_large_one(small, large, rounds, strength):
    source, result = to_levels(picture(*small)), picture(*large, seed=1)
    expected = backproject(result, from_levels(source), rounds, strength)
    found = corrected(source, result, strength, rounds)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@settings(deadline=None, max_examples=25)
@given(
    size=st.sampled_from(SIZES),
    color_fix=st.sampled_from(ColorFix),
    rounds=st.integers(0, 3),
    cuts=st.lists(st.integers(1, 200), min_size=1, max_size=6),
)
def test_where_bands_are_cut_makes_no_difference(size, color_fix, rounds, cuts):
    (small, large) = size
    source, result = to_levels(picture(*small)), picture(*large, seed=2)
    whole = corrected(source, result, 0.7, rounds, color_fix)
    correction = Correction(source, *large, 0.7, rounds, color_fix)
    edges = sorted({0, large[0], *np.minimum(np.cumsum(cuts), large[0]).tolist()})
    bands = [band for top, bottom in pairwise(edges) for band in correction.add(result[top:bottom])]
    np.testing.assert_allclose(np.concatenate(bands), whole, atol=1e-6)


@pytest.mark.parametrize("color_fix", ColorFix)
def test_rows_are_let_go_of_as_others_come(color_fix):
    height, width = 6000, 64
    source, rows = to_levels(picture(height // 4, width // 4)), picture(64, width, seed=3)
    correction = Correction(source, height, width, 1.0, 3, color_fix)
    most = given_rows = 0
    for top in range(0, height, 64):
        for band in correction.add(rows[: min(64, height - top)]):
            given_rows += len(band)
        most = max(most, top + 64 - given_rows)
    assert given_rows == height
    assert most <= 450  # what is known of a row lies no deeper


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_the_wavelet_brings_back_a_hue_and_keeps_detail(scale):
    truth = picture(48 * scale, 48 * scale)
    source = to_levels(resize(truth, 48, 48))
    checks = 0.03 * ((np.indices(truth.shape[:2]).sum(axis=0) % 2) * 2 - 1)[..., None]
    cast = np.array([0.06, -0.04, 0.02])
    found = corrected(source, (truth + cast + checks).astype(np.float32), 0, 0, ColorFix.WAVELET)
    inner = (slice(8 * scale, -8 * scale),) * 2
    drift = (found - truth)[inner]
    assert np.abs(drift.mean(axis=(0, 1))).max() < 0.006
    assert (drift * np.sign(checks)[inner]).mean() == pytest.approx(0.03, abs=0.006)


def test_both_together_come_nearer_than_either():
    truth = picture(160, 160)
    source = to_levels(resize(truth, 40, 40))
    result = np.clip(truth * (0.8, 0.9, 1.05), 0, 1).astype(np.float32)
    alone = corrected(source, result, 0.5, 1)
    both = corrected(source, result, 0.5, 1, ColorFix.WAVELET)
    numbers = [lr_psnr(found, from_levels(source)) for found in (result, alone, both)]
    assert numbers == sorted(numbers)
    assert numbers[2] > numbers[1] + 3


def test_nothing_asked_for_is_the_clip_alone():
    source, result = to_levels(picture(8, 8)), picture(32, 32, seed=1) * np.float32(1.5)
    correction = Correction(source, 32, 32, 0.0, 3, ColorFix.NONE)
    assert not correction.acts
    (found,) = correction.add(result)
    np.testing.assert_array_equal(found, np.clip(result, 0, 1))


def test_the_input_is_not_touched():
    source, result = to_levels(picture(10, 10)), picture(40, 40, seed=1)
    before = result.copy()
    corrected(source, result, 1.0, 2, ColorFix.WAVELET)
    np.testing.assert_array_equal(result, before)


@pytest.mark.parametrize(("rounds", "strength"), [(-1, 1.0), (1, -0.1), (1, 1.1)])
def test_bad_numbers_are_refused(rounds, strength):
    with pytest.raises(ValueError, match="must be"):
        Correction(to_levels(picture(4, 4)), 8, 8, strength, rounds, ColorFix.NONE)
