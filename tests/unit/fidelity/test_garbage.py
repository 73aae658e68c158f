from __future__ import annotations

import numpy as np
import pytest

from serve_app.fidelity.garbage import GRID, fault_of, means_of
from serve_app.levels import TOP_LEVEL, from_levels, to_levels
from serve_app.resample import resize
from serve_app.testing import photo_like

SIDE = 96


def crop(seed=0):
    small = photo_like(SIDE // 4, SIDE // 4, seed).astype(np.float32) / 255
    return to_levels(resize(small, SIDE, SIDE))


def noise(deviation):
    drawn = np.random.default_rng(0).normal(0.5, deviation, (SIDE, SIDE, 3))
    return to_levels(drawn.astype(np.float32))


def flat(*colour):
    return to_levels(np.broadcast_to(np.array(colour, np.float32), (SIDE, SIDE, 3)))


GARBAGE = {
    "black": flat(0, 0, 0),
    "white": flat(1, 1, 1),
    "brown": flat(0.4, 0.26, 0.13),
    "noise": noise(0.3),
    "another": photo_like(SIDE, SIDE, 5).astype(np.uint16) * 257,
    "inverted": TOP_LEVEL - crop(),
}
HONEST = {
    "itself": lambda tile: tile,
    "another tint": lambda tile: to_levels(from_levels(tile) * np.float32(0.9) + np.float32(0.02)),
    "more detail": lambda tile: to_levels(
        from_levels(tile) + from_levels(noise(0.06)) - np.float32(0.5)
    ),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_told(name):
    assert fault_of(GARBAGE[name], means_of(crop())) is not None


@pytest.mark.parametrize("change", HONEST.values(), ids=HONEST)
@pytest.mark.parametrize("seed", range(4))
def test_an_honest_tile_passes(change, seed):
    assert fault_of(change(crop(seed)), means_of(crop(seed))) is None


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_tile_of_a_flat_source_is_honest(level):
    tile = flat(level, level, level)
    assert fault_of(tile, means_of(tile)) is None


def test_a_flat_tile_of_the_right_colour_is_garbage_all_the_same():
    source = crop()
    tile = flat(*from_levels(source).mean(axis=(0, 1)))
    weak = to_levels(0.5 + (from_levels(source) - np.float32(0.5)) * np.float32(0.4))
    mean = flat(*from_levels(weak).mean(axis=(0, 1)))
    assert fault_of(tile, means_of(source)) is not None
    assert fault_of(mean, means_of(weak)) == "came out flat, but its source is not"


def test_noise_over_a_flat_source_is_told_by_its_steps():
    gray = flat(0.5, 0.5, 0.5)
    assert "noise" in str(fault_of(noise(0.3), means_of(gray)))


def test_the_less_the_source_is_held_the_more_may_drift():
    source = means_of(flat(0.5, 0.5, 0.5))
    faults = [fault_of(flat(0.75, 0.75, 0.75), source, hold) for hold in (1.0, 0.5, 0.0)]
    assert faults[0] is not None
    assert faults[1:] == [None, None]
    assert fault_of(GARBAGE["noise"], means_of(crop()), 0) is None


def test_means_are_those_of_the_cells_and_sides_need_not_divide():
    ramp = np.repeat(np.arange(83, dtype=np.uint16)[:, None] * 700, 91, axis=1)[..., None]
    found = means_of(np.broadcast_to(ramp, (83, 91, 3)))
    assert found.shape == (GRID, GRID, 4)
    rows = (np.arange(GRID) * 10 + 4.5) * 700 / TOP_LEVEL
    np.testing.assert_allclose(found[:, 3, 0], rows, rtol=1e-5)
    assert found[..., 3].max() == 0
