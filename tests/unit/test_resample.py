from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.resample import BLOCK_ROWS, resize, resize_rows, source_rows

HEIGHTS, WIDTHS = st.integers(1, 300), st.integers(1, 40)


def pillow(pixels, height, width):
    """An independent implementation of the same filter, channel by channel."""
    planes = [
        Image.fromarray(np.ascontiguousarray(pixels[:, :, channel])).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for channel in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


@settings(deadline=None)
@given(height=HEIGHTS, width=WIDTHS, to_height=HEIGHTS, to_width=WIDTHS, seed=st.integers(0, 99))
@example(height=1, width=1, to_height=300, to_width=40, seed=0)
@example(height=300, width=40, to_height=1, to_width=1, seed=0)
@example(height=299, width=37, to_height=1, to_width=40, seed=0)
def test_equals_an_independent_implementation(height, width, to_height, to_width, seed):
    pixels = np.random.default_rng(seed).normal(0.5, 1, (height, width, 3)).astype(np.float32)
    scaled = resize(pixels, to_height, to_width)
    assert scaled.dtype == np.float32
    assert scaled.flags.c_contiguous
    np.testing.assert_allclose(scaled, pillow(pixels, to_height, to_width), atol=5e-6)


@pytest.mark.parametrize(
    ("size", "to_size"),
    [
        ((256, 256), (1024, 1024)),
        ((1024, 1000), (250, 256)),
        ((300, 900), (1200, 30)),
        ((17, 5), (2, 640)),
    ],
)
def test_large_and_mixed_sizes_equal_it_too(size, to_size):
    pixels = np.random.default_rng(3).random((*size, 3), dtype=np.float32)
    np.testing.assert_allclose(resize(pixels, *to_size), pillow(pixels, *to_size), atol=2e-6)


@settings(deadline=None)
@given(
    height=HEIGHTS,
    width=WIDTHS,
    to_height=HEIGHTS,
    to_width=WIDTHS,
    level=st.floats(-4, 4, width=32),
)
def test_a_constant_stays_constant(height, width, to_height, to_width, level):
    scaled = resize(np.full((height, width), level, np.float32), to_height, to_width)
    np.testing.assert_allclose(scaled, level, rtol=2e-6, atol=1e-12)


@settings(deadline=None)
@given(height=HEIGHTS, width=WIDTHS, seed=st.integers(0, 99))
def test_the_same_size_keeps_every_value(height, width, seed):
    pixels = np.random.default_rng(seed).random((height, width, 2), dtype=np.float32)
    np.testing.assert_array_equal(resize(pixels, height, width), pixels)
    tall = resize(pixels, height + 3, width)
    for column in (0, width - 1):  # an axis that keeps its length does not mix its columns
        np.testing.assert_allclose(
            tall[:, column], resize(pixels[:, column : column + 1], height + 3, 1)[:, 0], atol=1e-6
        )


def test_one_channel_with_and_without_its_axis():
    pixels = np.random.default_rng(0).random((9, 14), dtype=np.float32)
    flat, deep = resize(pixels, 31, 6), resize(pixels[:, :, None], 31, 6)
    assert flat.shape == (31, 6)
    assert deep.shape == (31, 6, 1)
    np.testing.assert_array_equal(flat, deep[:, :, 0])


def test_overshoot_is_not_clipped():
    edge = np.repeat(np.array([[0.0, 1.0]], np.float32), 8, axis=1)
    scaled = resize(edge, 1, 64)
    assert scaled.min() < -0.05
    assert scaled.max() > 1.05


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0.0, 1.0], np.float32), 128)[None, :]
    np.testing.assert_allclose(resize(stripes, 1, 32)[0, 2:-2], 0.5, atol=0.01)


def test_any_memory_layout_gives_the_same_values():
    pixels = np.random.default_rng(0).random((20, 30, 3), dtype=np.float32)
    turned = np.asfortranarray(pixels)
    reversed_twice = pixels[::-1][::-1]
    for other in (turned, reversed_twice):
        np.testing.assert_array_equal(resize(other, 41, 17), resize(pixels, 41, 17))


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2, 2), (0, 4), (4, 0, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="pixels must be"):
        resize(np.zeros(shape, np.float32), 4, 4)


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (-1, 4)])
def test_lengths_below_one_are_refused(height, width):
    with pytest.raises(ValueError, match="1 or more"):
        resize(np.zeros((3, 3), np.float32), height, width)


@settings(deadline=None)
@given(
    height=HEIGHTS,
    to_height=HEIGHTS,
    width=WIDTHS,
    cut=st.tuples(st.floats(0, 0.99), st.floats(0, 1)),
    seed=st.integers(0, 99),
)
def test_some_rows_are_bit_equal_to_those_of_the_whole(height, to_height, width, cut, seed):
    pixels = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    top = int(cut[0] * to_height)
    bottom = top + 1 + int(cut[1] * (to_height - top - 1))
    at = source_rows(height, to_height, top, bottom)
    assert at.start % BLOCK_ROWS == 0
    assert at.stop % BLOCK_ROWS == 0 or at.stop == height
    rows = resize_rows(pixels[at.start : at.stop], at.start, height, to_height, top, bottom)
    np.testing.assert_array_equal(rows, resize(pixels, to_height, width)[top:bottom])
    wider = resize(pixels, height, 2 * width + 1)
    part = pixels[at.start : at.stop]
    np.testing.assert_array_equal(resize(part, len(part), 2 * width + 1), wider[at.start : at.stop])


def test_rows_that_are_needed_and_missing_are_named():
    with pytest.raises(ValueError, match=r"range\(0, 32\) are needed, not 0 to 16"):
        resize_rows(np.zeros((16, 2), np.float32), 0, 100, 400, 60, 64)
