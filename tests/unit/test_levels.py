"""Levels lose nothing of 8-bit and 16-bit pictures."""

from __future__ import annotations

import numpy as np

from serve_app.levels import TOP_LEVEL, from_levels, to_levels


def test_every_8_bit_value_round_trips():
    values = np.arange(256)
    levels = to_levels((values / 255).astype(np.float32))
    assert np.array_equal(levels, values * 257)
    assert np.array_equal(np.rint(from_levels(levels) * 255), values)


def test_every_16_bit_value_round_trips():
    levels = np.arange(TOP_LEVEL + 1, dtype=np.uint16)
    pixels = from_levels(levels)
    assert pixels.dtype == np.float32
    assert np.array_equal(to_levels(pixels), levels)
    assert (pixels[0], pixels[-1]) == (0, 1)


def test_what_lies_outside_is_clipped():
    outside = np.array([-1, -1e-6, 1 + 1e-6, 2], np.float32)
    assert to_levels(outside).tolist() == [0, 0, TOP_LEVEL, TOP_LEVEL]


def test_the_input_is_not_changed():
    pixels = np.full((2, 3), 0.5, np.float32)
    to_levels(pixels)
    assert (pixels == 0.5).all()


def test_fractions_of_a_level_come_back_as_pixels():
    assert from_levels(np.array([TOP_LEVEL / 4], np.float32)).tolist() == [0.25]
