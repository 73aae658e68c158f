"""The plan covers every pixel with tiles of one size on one grid."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.tiling.geometry import Size, Tile
from serve_app.tiling.grid import Plan, make_plan, showing
from tests.unit.tiling.layouts import pad_to_canvas, plans

SIZES = [
    Size(1, 1),
    Size(300, 12000),
    Size(12000, 300),
    Size(1023, 1025),
    Size(256, 256),
    Size(257, 1),
]
LAYOUTS = [(256, 32, 16), (256, 0, 16), (1024, 128, 16), (96, 32, 32), (32, 8, 8)]


def axes(plan: Plan) -> list[tuple[tuple[int, ...], int, int]]:
    """The origins along an axis, the canvas's length and the result's."""
    return [
        (plan.tops, plan.canvas.height, plan.result.height),
        (plan.lefts, plan.canvas.width, plan.result.width),
    ]


def assert_invariants(plan: Plan, align_px: int) -> None:
    for origins, canvas, result in axes(plan):
        assert origins[0] == 0
        assert origins[-1] + plan.tile_px == canvas
        assert all(old < new for old, new in pairwise(origins))
        assert all(old + plan.tile_px - new >= plan.overlap_px for old, new in pairwise(origins))
        assert all(origin % align_px == 0 for origin in (*origins, canvas))
        assert result <= canvas < max(result + align_px, plan.tile_px + 1)


@settings(max_examples=300, deadline=None)
@given(plans())
def test_any_plan_holds_the_invariants(planned: tuple[Plan, int]):
    assert_invariants(*planned)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_real_sizes_hold_the_invariants(size: Size, layout: tuple[int, int, int]):
    assert_invariants(make_plan(size, *layout), align_px=layout[2])


@settings(max_examples=50, deadline=None)
@given(plans(most_px=150))
def test_every_pixel_is_covered_by_tiles_inside_the_canvas(planned: tuple[Plan, int]):
    plan, _ = planned
    covered = np.zeros((plan.canvas.height, plan.canvas.width), bool)
    for tile in plan.tiles:
        assert (tile.height, tile.width) == (plan.tile_px, plan.tile_px)
        assert covered[tile.rows, tile.columns].shape == (plan.tile_px, plan.tile_px)
        covered[tile.rows, tile.columns] = True
    assert covered.all()


@pytest.mark.parametrize(
    ("length", "origins"),
    [
        (1, (0,)),
        (32, (0,)),
        (33, (0, 8)),
        (56, (0, 24)),
        (57, (0, 24, 32)),  # the last is pulled inward
        (80, (0, 24, 48)),
    ],
)
def test_the_last_tile_is_pulled_inward(length: int, origins: tuple[int, ...]):
    plan = make_plan(Size(length, 1), tile_px=32, overlap_px=8, align_px=8)
    assert plan.tops == origins
    assert plan.lefts == (0,)


def test_tiles_are_counted_and_listed_row_by_row():
    plan = make_plan(Size(60, 90), tile_px=32, overlap_px=8, align_px=8)
    assert plan.count == len(plan.tiles) == len(plan.tops) * len(plan.lefts) == 3 * 4
    assert [(tile.top, tile.left) for tile in plan.tiles] == [
        (top, left) for top in plan.tops for left in plan.lefts
    ]


def test_no_more_tiles_than_the_step_needs():
    plan = make_plan(Size(1200, 48000), tile_px=1024, overlap_px=128, align_px=16)
    step = 1024 - 128
    assert plan.count == 2 * (1 + -(-(48000 - 1024) // step))


@pytest.mark.parametrize("layout", [(30, 8, 8), (32, 4, 8), (32, 16, 8), (32, 12, 4)], ids=str)
def test_lengths_that_do_not_fit_each_other_are_refused(layout: tuple[int, int, int]):
    with pytest.raises(ValueError, match="do not fit"):
        make_plan(Size(10, 10), *layout)


@settings(max_examples=60, deadline=None)
@given(plans(most_px=80), st.integers(0, 2**32))
def test_padding_reflects_and_cropping_undoes_it(planned: tuple[Plan, int], seed: int):
    plan, _ = planned
    rng = np.random.default_rng(seed)
    shape = (plan.result.height, plan.result.width, 3)
    picture = rng.integers(0, 65536, shape, dtype=np.uint16)
    canvas = pad_to_canvas(picture, plan)
    assert canvas.shape == (plan.canvas.height, plan.canvas.width, 3)
    assert np.array_equal(canvas[: plan.result.height, : plan.result.width], picture)
    rows = reflected(plan.result.height, plan.canvas.height)
    columns = reflected(plan.result.width, plan.canvas.width)
    assert np.array_equal(canvas, picture[rows][:, columns])


def reflected(length: int, padded: int) -> list[int]:
    """Which pixel stands at each place: 0 1 2 1 0 1 ... for a length of 3."""
    if length == 1:
        return [0] * padded
    period = 2 * (length - 1)
    return [min(at % period, period - at % period) for at in range(padded)]


@settings(max_examples=200, deadline=None)
@given(plans(most_px=3000), st.integers(1, 8), st.data())
def test_a_place_is_shown_by_the_tiles_that_share_a_pixel_with_it(drawn, scale: int, data):
    plan, _ = drawn
    source = Size(-(-plan.result.height // scale), -(-plan.result.width // scale))
    top, left = (data.draw(st.integers(0, side - 1)) for side in (source.height, source.width))
    height = data.draw(st.integers(1, source.height - top))
    place = Tile(top, left, height, data.draw(st.integers(1, source.width - left)))
    down, across = plan.result.height / source.height, plan.result.width / source.width
    # what a place surely covers of the result, and what it touches at most
    inner, outer = (np.zeros((plan.canvas.height, plan.canvas.width), bool) for _ in range(2))
    rows, columns = (
        (place.top * down, place.bottom * down),
        (place.left * across, place.right * across),
    )
    ends = [(math.ceil(a - 1e-9), math.floor(b + 1e-9)) for a, b in (rows, columns)]
    inner[slice(*ends[0]), slice(*ends[1])] = True
    ends = [(math.floor(a + 1e-9), math.ceil(b - 1e-9)) for a, b in (rows, columns)]
    outer[slice(*ends[0]), slice(*ends[1])] = True
    least, most = (
        {i for i, tile in enumerate(plan.tiles) if covered[tile.rows, tile.columns].any()}
        for covered in (inner, outer)
    )
    assert least <= showing(plan, source, [place]) <= most


def test_no_place_is_shown_by_no_tile():
    plan = make_plan(Size(300, 500), tile_px=96, overlap_px=32, align_px=32)
    assert showing(plan, Size(30, 50), []) == frozenset()
    assert showing(plan, Size(30, 50), [Tile(0, 0, 30, 50)]) == frozenset(range(plan.count))
