"""The plan: where the tiles of one picture lie. Knows sizes only, no pixel.

The canvas is the result, padded at its bottom and right until whole tiles fit. Tiles have one fixed size and
step by that size less the overlap; the last one of a row or column is pulled inward to end with the canvas.
Every origin is a multiple of `align_px`, so that a tile's latents are a crop of the canvas's latents.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.tiling.geometry import Size, Tile


@dataclass(frozen=True, slots=True)
class Plan:
    """How a result is cut.

    Attributes:
        result: What the caller gets, px.
        canvas: The result padded to hold whole tiles, px; at least one tile.
        tile_px: Side of a tile.
        overlap_px: Least overlap of neighbours, and the width over which they fade into each other.
        tops: Rows at which tiles begin, rising.
        lefts: Columns at which tiles begin, rising.
    """

    result: Size
    canvas: Size
    tile_px: int
    overlap_px: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles, row by row."""
        side = self.tile_px
        return tuple(Tile(top, left, side, side) for top in self.tops for left in self.lefts)

    @property
    def count(self) -> int:
        """The number of tiles."""
        return len(self.tops) * len(self.lefts)


def make_plan(result: Size, tile_px: int, overlap_px: int, align_px: int) -> Plan:
    """Plans the tiles of a result.

    Args:
        result: Size of the result, px.
        tile_px: Side of a tile; a multiple of `align_px`.
        overlap_px: Least overlap; a multiple of `align_px`, at most a third of `tile_px`, so that no pixel
            lies in two fades of one axis.
        align_px: The grid on which tiles lie.

    Raises:
        ValueError: if the three lengths do not fit each other.
    """
    if tile_px % align_px or overlap_px % align_px or overlap_px * 3 > tile_px:
        raise ValueError(f"tile {tile_px}, overlap {overlap_px} and grid {align_px} do not fit")
    canvas = Size(
        _padded(result.height, tile_px, align_px), _padded(result.width, tile_px, align_px)
    )
    return Plan(
        result,
        canvas,
        tile_px,
        overlap_px,
        _origins(canvas.height, tile_px, overlap_px),
        _origins(canvas.width, tile_px, overlap_px),
    )


def showing(plan: Plan, source: Size, places: Iterable[Tile]) -> frozenset[int]:
    """Which tiles show some of these places.

    Args:
        plan: Where the tiles lie.
        source: Size of the source.
        places: Rectangles in px of the source.

    Returns:
        Indices into `plan.tiles`.
    """
    down, across = plan.result.height / source.height, plan.result.width / source.width
    return frozenset(
        index
        for place in places
        for index, tile in enumerate(plan.tiles)
        if place.top * down < tile.bottom
        and tile.top < place.bottom * down
        and place.left * across < tile.right
        and tile.left < place.right * across
    )


def mirrored(length: int, padded: int) -> NDArray[np.intp]:
    """Which row or column of a result stands where on its canvas: past its end it is reflected.

    Args:
        length: Of the result, px.
        padded: Of the canvas, px; at least as long.

    Returns:
        (padded,) indices below `length`.
    """
    return np.pad(np.arange(length), (0, padded - length), mode="reflect")


def _padded(length: int, tile_px: int, align_px: int) -> int:
    return max(tile_px, -(-length // align_px) * align_px)


def _origins(length: int, tile_px: int, overlap_px: int) -> tuple[int, ...]:
    last = length - tile_px
    return (*range(0, last, tile_px - overlap_px), last)
