"""Weights sum to exactly 1; where tiles agree, the result is their value to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.levels import Levels, from_levels
from serve_app.tiling.blend import blend, weights
from serve_app.tiling.geometry import Size
from serve_app.tiling.grid import Plan, make_plan
from tests.unit.tiling.layouts import pad_to_canvas, plans


def cut(canvas: Levels, plan: Plan) -> list[Levels]:
    return [canvas[tile.rows, tile.columns] for tile in plan.tiles]


def constant(level: int, plan: Plan) -> Levels:
    return np.full((plan.tile_px, plan.tile_px, 3), level, np.uint16)


@settings(max_examples=300, deadline=None)
@given(plans())
def test_weights_sum_to_exactly_one_at_every_pixel(planned: tuple[Plan, int]):
    plan, _ = planned
    lengths = {plan.tops: plan.canvas.height, plan.lefts: plan.canvas.width}
    for origins, length in lengths.items():
        table = weights(origins, plan.tile_px, plan.overlap_px, length)
        assert (table.sum(axis=0) == 1).all()
        assert table.min() >= 0
        for row, origin in zip(table, origins, strict=True):
            assert not row[:origin].any()
            assert not row[origin + plan.tile_px :].any()
            assert row.any()


@pytest.mark.parametrize("size", [Size(300, 12000), Size(1, 1), Size(1023, 1025)], ids=str)
def test_weights_sum_to_one_for_real_layouts(size: Size):
    plan = make_plan(size, tile_px=256, overlap_px=32, align_px=16)
    table = weights(plan.lefts, 256, 32, plan.canvas.width)
    assert table.shape == (len(plan.lefts), plan.canvas.width)
    assert (table.sum(axis=0) == 1).all()


@settings(max_examples=60, deadline=None)
@given(plans(most_px=120), st.integers(0, 2**32))
def test_tiles_that_agree_come_back_bit_for_bit(planned: tuple[Plan, int], seed: int):
    plan, _ = planned
    shape = (plan.result.height, plan.result.width, 3)
    picture = np.random.default_rng(seed).integers(0, 65536, shape, dtype=np.uint16)
    joined = blend(cut(pad_to_canvas(picture, plan), plan), plan)
    assert joined.dtype == np.float32
    assert np.array_equal(joined, from_levels(picture))


@settings(max_examples=60, deadline=None)
@given(plans(most_px=100), st.integers(0, 2**32))
def test_the_blend_is_what_its_weights_say(planned: tuple[Plan, int], seed: int):
    plan, _ = planned
    rng = np.random.default_rng(seed)
    tiles = [
        rng.integers(0, 65536, (plan.tile_px,) * 2 + (1,), dtype=np.uint16) for _ in plan.tiles
    ]
    down = weights(plan.tops, plan.tile_px, plan.overlap_px, plan.canvas.height).astype(float)
    across = weights(plan.lefts, plan.tile_px, plan.overlap_px, plan.canvas.width).astype(float)
    expected = np.zeros((plan.canvas.height, plan.canvas.width))
    for number, (tile, pixels) in enumerate(zip(plan.tiles, tiles, strict=True)):
        row, column = divmod(number, len(plan.lefts))
        weight = np.outer(down[row, tile.rows], across[column, tile.columns])
        expected[tile.rows, tile.columns] += weight * pixels[:, :, 0]
    expected = expected[: plan.result.height, : plan.result.width] / 65535
    assert np.abs(blend(tiles, plan)[:, :, 0] - expected).max() < 1e-6


@pytest.mark.parametrize("side_by_side", [True, False])
@pytest.mark.parametrize("overlap_px", [8, 16, 32])
def test_a_fade_between_two_constant_tiles_is_monotone(side_by_side: bool, overlap_px: int):
    size = Size(96, 160) if side_by_side else Size(160, 96)
    plan = make_plan(size, tile_px=96, overlap_px=overlap_px, align_px=8)
    joined = blend([constant(1000, plan), constant(60000, plan)], plan)
    line = joined[5, :, 0] if side_by_side else joined[:, 5, 0]
    assert (np.diff(line) >= 0).all()
    assert np.count_nonzero(np.diff(line)) == overlap_px + 1
    assert (line[0], line[-1]) == tuple(from_levels(np.array([1000, 60000], np.uint16)))


def test_outside_the_fade_a_pixel_is_one_tiles():
    plan = make_plan(Size(32, 56), tile_px=32, overlap_px=8, align_px=8)
    joined = blend([constant(0, plan), constant(65535, plan)], plan)
    assert not joined[:, :24].any()
    assert (joined[:, 32:] == 1).all()


def test_the_fade_lies_in_the_middle_of_a_wide_overlap():
    plan = make_plan(Size(32, 40), tile_px=32, overlap_px=8, align_px=8)
    table = weights(plan.lefts, 32, 8, 40)
    mixed = np.flatnonzero((table[0] > 0) & (table[1] > 0))
    assert (mixed[0], mixed[-1]) == (16, 23)  # the tiles share 8 to 32


def test_without_overlap_tiles_stand_side_by_side():
    plan = make_plan(Size(16, 32), tile_px=16, overlap_px=0, align_px=16)
    joined = blend([constant(0, plan), constant(65535, plan)], plan)
    assert not joined[:, :16].any()
    assert (joined[:, 16:] == 1).all()
