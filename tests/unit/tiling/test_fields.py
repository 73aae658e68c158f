"""The noise at a place depends on the seed and the place alone, and is normal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.contracts import MAX_SEED
from serve_app.tiling.fields import noise
from serve_app.tiling.geometry import Tile

GOLDEN = [
    *(-0.4906301, -0.2849984, 1.210816, -1.3667165, -0.8026153, -1.1068826),
    *(-1.0342089, 1.8144469, 1.247326, -0.2818324, -0.5654861, 2.2748353),
]
SEEDS = st.integers(0, MAX_SEED)
CANVAS = Tile(0, 0, 80, 112)


@st.composite
def crops(draw: st.DrawFn) -> Tile:
    top, left = draw(st.integers(0, 79)), draw(st.integers(0, 111))
    return Tile(top, left, draw(st.integers(1, 80 - top)), draw(st.integers(1, 112 - left)))


@settings(max_examples=100, deadline=None)
@given(SEEDS, crops())
def test_every_crop_sees_the_same_field(seed: int, crop: Tile):
    whole = noise(seed, CANVAS, channels=4)
    assert np.array_equal(noise(seed, crop, channels=4), whole[:, crop.rows, crop.columns])


def test_a_crop_far_out_is_part_of_the_field_too():
    far = noise(5, Tile(5000, 7000, 40, 40), channels=4)
    assert np.array_equal(far[:, 7:20, 3:30], noise(5, Tile(5007, 7003, 13, 27), channels=4))


@settings(max_examples=50, deadline=None)
@given(SEEDS, SEEDS)
def test_another_seed_is_another_field(one: int, other: int):
    crop = Tile(3, 5, 8, 8)
    same = np.array_equal(noise(one, crop, 2), noise(other, crop, 2))
    assert same == (one == other)


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_no_value_comes_twice(seed: int):
    field = noise(seed, Tile(0, 0, 256, 256), channels=4)
    values = np.unique(field)
    assert values.size > 0.99 * field.size  # float32 lets a few collide by chance
    blocks = {
        field[:, r : r + 16, c : c + 16].tobytes()
        for r in range(0, 256, 16)
        for c in range(0, 256, 16)
    }
    assert len(blocks) == 16 * 16


def test_rows_and_columns_are_not_interchangeable():
    assert not np.array_equal(noise(1, Tile(0, 16, 16, 16), 2), noise(1, Tile(16, 0, 16, 16), 2))


@pytest.mark.parametrize("seed", [0, 42, MAX_SEED])
def test_the_noise_is_normal(seed: int):
    field = noise(seed, Tile(0, 0, 256, 256), channels=16).astype(np.float64)
    error = field.size**-0.5  # of the mean of standard normal values
    assert np.isfinite(field).all()
    assert abs(field.mean()) < 5 * error
    assert abs((field**2).mean() - 1) < 5 * error * 2**0.5
    assert abs((field**3).mean()) < 5 * error * 15**0.5
    assert abs((field**4).mean() - 3) < 5 * error * 96**0.5
    assert 4.5 < np.abs(field).max() < 7


@pytest.mark.parametrize("shift", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 16), (0, 16, 0)])
def test_neighbours_are_independent(shift: tuple[int, int, int]):
    field = noise(3, Tile(0, 0, 256, 256), channels=8).astype(np.float64)
    moved = np.roll(field, shift, axis=(0, 1, 2))
    assert abs((field * moved).mean()) < 5 * field.size**-0.5


def test_the_two_halves_of_a_word_are_independent():
    field = noise(3, Tile(0, 0, 160, 160), channels=8).astype(np.float64)
    cosines, sines = field[:4], field[4:]  # what one word became stands half the channels apart
    assert abs((cosines * sines).mean()) < 5 * cosines.size**-0.5
    assert abs((cosines**2 * sines**2).mean() - 1) < 5 * cosines.size**-0.5 * 8**0.5


def test_the_shape_and_type_are_what_a_latent_needs():
    crop = noise(7, Tile(3, 4, 5, 6), channels=16)
    assert crop.shape == (16, 5, 6)
    assert crop.dtype == np.float32
    assert crop.flags.c_contiguous


def test_golden_values_of_one_seed():
    """A change here changes every result for a given seed: it is a breaking change."""
    crop = noise(2026, Tile(30, 45, 2, 3), channels=4)
    assert crop[[0, 3]].ravel().tolist() == pytest.approx(GOLDEN, abs=1e-6)
