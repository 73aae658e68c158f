from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.imaging.alpha import fill_levels, fill_transparent, resize_with_alpha
from serve_app.resample import resize

SIDES = st.integers(1, 40)


def disc(side=64, colour=(0.9, 0.3, 0.1), hidden=(0.0, 0.0, 0.0)):
    """A disc of one colour with a soft edge; `hidden` is the colour stored where nothing shows."""
    y, x = np.mgrid[0:side, 0:side] + 0.5
    distance = np.hypot(y - side / 2, x - side / 2)
    alpha = np.clip(side / 3 - distance + 0.5, 0, 1).astype(np.float32)
    pixels = np.where(alpha[:, :, None] > 0, np.float32(colour), np.float32(hidden))
    return pixels.astype(np.float32), alpha


@settings(deadline=None)
@given(height=SIDES, width=SIDES, seed=st.integers(0, 99), share=st.sampled_from([0.02, 0.5, 0.98]))
def test_visible_colours_stay_and_hidden_ones_lie_between_them(height, width, seed, share):
    rng = np.random.default_rng(seed)
    colour = (0.25 + 0.5 * rng.random((height, width, 3))).astype(np.float32)
    alpha = np.where(rng.random((height, width)) < share, rng.random((height, width)), 0)
    alpha = alpha.astype(np.float32)
    colour[alpha == 0] = 5.0  # a mark that may not survive
    filled = fill_transparent(colour, alpha)
    if not (alpha > 0).any():
        assert filled is colour
        return
    np.testing.assert_array_equal(filled[alpha > 0], colour[alpha > 0])
    assert filled.min() >= 0
    assert filled.max() <= 1


def test_one_visible_colour_fills_everything():
    colour, alpha = disc(50, (0.9, 0.3, 0.1), hidden=(0, 1, 0))
    filled = fill_transparent(colour, alpha)
    np.testing.assert_allclose(filled, np.broadcast_to([0.9, 0.3, 0.1], filled.shape), atol=1e-5)


def test_each_side_takes_its_own_neighbours_colour():
    colour = np.zeros((1, 64, 3), np.float32)
    colour[0, :8], colour[0, 56:] = (1, 0, 0), (0, 0, 1)
    alpha = np.zeros((1, 64), np.float32)
    alpha[0, :8] = alpha[0, 56:] = 1
    filled = fill_transparent(colour, alpha)[0]
    assert filled[9, 0] > 0.9
    assert filled[9, 2] < 0.1
    assert filled[54, 2] > 0.9
    assert filled[54, 0] < 0.1


def test_nothing_hidden_or_nothing_visible_changes_nothing():
    colour = np.random.default_rng(0).random((5, 7, 3), dtype=np.float32)
    for level in (0.0, 0.3, 1.0):
        assert fill_transparent(colour, np.full((5, 7), level, np.float32)) is colour


@settings(deadline=None)
@given(height=SIDES, width=SIDES, to_height=SIDES, to_width=SIDES, seed=st.integers(0, 99))
def test_opaque_is_the_plain_resize(height, width, to_height, to_width, seed):
    colour = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    scaled, alpha = resize_with_alpha(
        colour, np.ones((height, width), np.float32), to_height, to_width
    )
    np.testing.assert_allclose(
        scaled, np.clip(resize(colour, to_height, to_width), 0, 1), atol=2e-6
    )
    np.testing.assert_allclose(alpha, 1, atol=1e-6)


@pytest.mark.parametrize("hidden", [(0, 0, 0), (1, 1, 1), (0, 1, 0)])
@pytest.mark.parametrize("side", [256, 97, 20])
def test_no_halo_whatever_is_stored_where_nothing_shows(hidden, side):
    colour, alpha = disc(64, (0.9, 0.3, 0.1), hidden)
    scaled, scaled_alpha = resize_with_alpha(colour, alpha, side, side)
    np.testing.assert_allclose(
        scaled, np.broadcast_to(np.float32([0.9, 0.3, 0.1]), scaled.shape), atol=1e-4
    )
    assert scaled_alpha.min() == 0
    assert scaled_alpha.max() == 1
    assert scaled_alpha.mean() == pytest.approx(alpha.mean(), abs=0.01)


def test_the_plain_resize_would_have_had_a_halo():
    colour, alpha = disc(64, (0.9, 0.3, 0.1), (0, 1, 0))
    visible = resize(alpha, 256, 256) > 0.05
    assert np.abs(resize(colour, 256, 256)[visible] - np.float32([0.9, 0.3, 0.1])).max() > 0.3


@settings(deadline=None)
@given(height=SIDES, width=SIDES, to_height=SIDES, to_width=SIDES, seed=st.integers(0, 99))
def test_any_alpha_stays_in_range(height, width, to_height, to_width, seed):
    rng = np.random.default_rng(seed)
    colour = rng.random((height, width, 3), dtype=np.float32)
    alpha = rng.integers(0, 2, (height, width)).astype(np.float32)
    scaled, scaled_alpha = resize_with_alpha(colour, alpha, to_height, to_width)
    assert scaled.shape == (to_height, to_width, 3)
    assert scaled_alpha.shape == (to_height, to_width)
    assert scaled.dtype == scaled_alpha.dtype == np.float32
    for values in (scaled, scaled_alpha):
        assert values.min() >= 0
        assert values.max() <= 1


def test_same_size_keeps_what_is_visible():
    colour, alpha = disc(32)
    scaled, scaled_alpha = resize_with_alpha(colour, alpha, 32, 32)
    np.testing.assert_array_equal(scaled_alpha, alpha)
    np.testing.assert_allclose(scaled[alpha > 0.02], colour[alpha > 0.02], atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (257, 21), (700, 9)])
def test_levels_are_filled_in_bands_as_in_one_piece(monkeypatch, height, width):
    rng = np.random.default_rng(height)
    colour = rng.integers(40, 200, (height, width, 3), dtype=np.uint8)
    alpha = np.where(rng.random((height, width)) < 0.3, 255, 0).astype(np.uint8)
    alpha[0, 0] = 255
    colour[alpha == 0] = 255  # a mark that may not survive
    banded, whole = colour.copy(), colour.copy()
    fill_levels(banded, alpha)
    monkeypatch.setattr("serve_app.imaging.alpha._BAND", 1024)
    fill_levels(whole, alpha)
    np.testing.assert_array_equal(banded[alpha > 0], colour[alpha > 0])
    np.testing.assert_allclose(banded.astype(int), whole.astype(int), atol=1)
    assert not (banded[alpha == 0] == 255).all(axis=-1).any()


@pytest.mark.parametrize("level", [0, 255])
def test_levels_of_which_all_or_none_show_are_left_alone(level):
    colour = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    filled = colour.copy()
    fill_levels(filled, np.full((4, 4), level, np.uint8))
    np.testing.assert_array_equal(filled, colour)
