"""Tiles shrink exactly or not at all; results keep the aspect and fit what was asked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.contracts import ResolvedParams, UpscaleParams, resolve
from serve_app.errors import InvalidParameter
from serve_app.testing import FAKE_MODEL
from serve_app.tiling.geometry import Size, Tile, result_size

SIDES = st.integers(1, 12000)


def params(**asked: float) -> ResolvedParams:
    return resolve(UpscaleParams.parse(asked), FAKE_MODEL, drawn_seed=0)


def test_a_size_reads_as_people_write_it():
    assert str(Size(height=300, width=12000)) == "12000x300"
    assert Size(300, 12000).pixels == 3_600_000


def test_a_tile_knows_its_edges():
    tile = Tile(top=8, left=16, height=32, width=64)
    assert (tile.bottom, tile.right) == (40, 80)
    assert (tile.rows, tile.columns) == (slice(8, 40), slice(16, 80))


def test_a_tile_shrinks_to_the_grid_of_its_latents():
    assert Tile(16, 32, 64, 128).shrunk(8) == Tile(2, 4, 8, 16)


@pytest.mark.parametrize(
    "tile", [Tile(4, 0, 8, 8), Tile(0, 4, 8, 8), Tile(0, 0, 4, 8), Tile(0, 0, 8, 4)]
)
def test_a_tile_off_the_grid_does_not_shrink(tile: Tile):
    with pytest.raises(ValueError, match="grid of 8"):
        tile.shrunk(8)


@pytest.mark.parametrize(
    ("source", "scale", "expected"),
    [
        (Size(1, 1), 1, Size(1, 1)),
        (Size(1, 1), 8, Size(8, 8)),
        (Size(3, 5), 1.5, Size(5, 8)),  # 4.5 and 7.5 round up
        (Size(7, 11), 2.3, Size(16, 25)),
        (Size(300, 12000), 4, Size(1200, 48000)),
    ],
)
def test_each_side_is_scaled_and_rounded(source: Size, scale: float, expected: Size):
    assert result_size(source, params(scale=scale)) == expected


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.floats(1, 8))
def test_a_scale_keeps_the_aspect_to_half_a_pixel(height: int, width: int, scale: float):
    result = result_size(Size(height, width), params(scale=scale))
    assert abs(result.height - height * scale) <= 0.5
    assert abs(result.width - width * scale) <= 0.5


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.sampled_from(["width", "height"]), st.data())
def test_one_limit_is_met_exactly(height: int, width: int, field: str, data: st.DataObject):
    side = height if field == "height" else width
    limit = data.draw(st.integers(side, min(8 * side, 65535)))
    result = result_size(Size(height, width), params(**{field: limit}))
    scale = limit / side
    assert getattr(result, field) == limit
    assert abs(result.height - height * scale) <= 0.5 + 1e-6
    assert abs(result.width - width * scale) <= 0.5 + 1e-6


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.data())
def test_of_two_limits_one_is_met_and_none_passed(height: int, width: int, data: st.DataObject):
    asked = {
        "height": data.draw(st.integers(height, min(8 * height, 65535))),
        "width": data.draw(st.integers(width, min(8 * width, 65535))),
    }
    result = result_size(Size(height, width), params(**asked))
    assert result.height <= asked["height"]
    assert result.width <= asked["width"]
    assert result.height == asked["height"] or result.width == asked["width"]


@pytest.mark.parametrize(
    ("asked", "field", "allowed"),
    [
        ({"width": 99}, "width", "100 to 800"),
        ({"width": 801}, "width", "100 to 800"),
        ({"height": 49}, "height", "50 to 400"),
        ({"height": 401}, "height", "50 to 400"),
        ({"width": 400, "height": 40}, "height", "50 to 400"),
        ({"width": 90, "height": 400}, "width", "100 to 800"),
    ],
)
def test_a_limit_that_needs_another_scale_is_refused_by_name(
    asked: dict[str, float], field: str, allowed: str
):
    with pytest.raises(InvalidParameter) as caught:
        result_size(Size(height=50, width=100), params(**asked))
    assert (caught.value.field, caught.value.allowed) == (field, allowed)
    assert field in caught.value.detail
