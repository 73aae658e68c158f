"""Joins tiles: neighbours fade into each other over the overlap; everywhere else a pixel is one tile's.

A fade is a + (b - a) w, not a w1 + b w2: where the tiles agree the result is their value to the last bit.
Since fades of one axis never meet (the plan keeps the overlap to a third of a tile), the weights of all
tiles sum to exactly 1 at every pixel; `weights` states them for the tests and for whoever wants to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.levels import Levels, Pixels, from_levels
from serve_app.tiling.grid import Plan

_WEIGHT_STEPS = 1024
_BAND_ROWS = 64  # joined at once; bounds what is held as floats


class Blending:
    """Puts a result together while its rows of tiles come, and lets go of what it has given.

    Args:
        plan: Where the tiles lie.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._fades = fades(plan.tops, plan.tile_px, plan.overlap_px)
        self._row = 0
        self._fading: Pixels | None = None  # the last row's part of the fade into the next one

    def add(self, tiles: Sequence[Levels]) -> Iterator[Pixels]:
        """Takes the next row of tiles.

        Args:
            tiles: One (tile_px, tile_px, channels) array for each of `plan.lefts`, in that order.

        Yields:
            The rows of the result that are now known, in bands: (rows, result width, channels) in [0, 1].
        """
        plan, row = self._plan, self._row
        origin = plan.tops[row]
        start = self._fades[row - 1] if row else 0
        end = self._fades[row] if row < len(self._fades) else plan.canvas.height
        faded = start + plan.overlap_px if row else start
        for top in range(start, min(end, plan.result.height), _BAND_ROWS):
            bottom = min(top + _BAND_ROWS, end)
            band = self._across(tiles, top - origin, bottom - origin)
            if self._fading is not None and top < faded:
                old = self._fading[top - start : bottom - start]
                rising = _ramp(plan.overlap_px)[top - start : bottom - start, None, None]
                band[: len(old)] = old + (band[: len(old)] - old) * rising
            yield from_levels(band[: plan.result.height - top, : plan.result.width])
        self._fading = None
        if row < len(self._fades) and end < plan.result.height:
            self._fading = self._across(tiles, end - origin, end - origin + plan.overlap_px)
        self._row += 1

    def _across(self, tiles: Sequence[Levels], top: int, bottom: int) -> Pixels:
        parts = [tile[top:bottom] for tile in tiles]
        return _join(parts, self._plan)


def blend(tiles: Sequence[Levels], plan: Plan) -> Pixels:
    """Puts a whole result together at once.

    Args:
        tiles: One (tile_px, tile_px, channels) array for each of `plan.tiles`, in that order.
        plan: Where they lie.

    Returns:
        (result height, result width, channels) in [0, 1].
    """
    blending, across = Blending(plan), len(plan.lefts)
    rows = range(0, len(tiles), across)
    bands = [band for first in rows for band in blending.add(tiles[first : first + across])]
    return np.concatenate(bands)


def weights(origins: Sequence[int], tile_px: int, overlap_px: int, length: int) -> Pixels:
    """The weight of each tile along one axis.

    Returns:
        (tiles, length), in multiples of 1/1024, each column summing to exactly 1.
    """
    table = np.zeros((len(origins), length), np.float32)
    for row, origin in enumerate(origins):
        table[row, origin : origin + tile_px] = 1
    rising = _ramp(overlap_px)
    for row, start in enumerate(fades(origins, tile_px, overlap_px)):
        stop = start + overlap_px
        table[row, start:stop] = 1 - rising
        table[row, stop:] = 0
        table[row + 1, :start] = 0
        table[row + 1, start:stop] = rising
    return table


def _join(parts: Sequence[NDArray[Any]], plan: Plan) -> Pixels:
    """Joins rows of neighbouring tiles, (rows, tile_px, channels) each; computes in float32."""
    rows, side, channels = parts[0].shape
    joined = np.empty((rows, plan.canvas.width, channels), np.float32)
    joined[:, :side] = parts[0]
    rising = _ramp(plan.overlap_px)[:, None]
    starts = fades(plan.lefts, side, plan.overlap_px)
    for new, origin, start in zip(parts[1:], plan.lefts[1:], starts, strict=True):
        stop = start + plan.overlap_px
        old = joined[:, start:stop]
        old += (new[:, start - origin : stop - origin] - old) * rising
        joined[:, stop : origin + side] = new[:, stop - origin :]
    return joined


def fades(origins: Sequence[int], tile_px: int, overlap_px: int) -> list[int]:
    """Where each fade along one axis begins: in the middle of what two neighbours share."""
    return [new + (old + tile_px - new - overlap_px) // 2 for old, new in pairwise(origins)]


def _ramp(width: int) -> Pixels:
    """Smoothly rising weights strictly between 0 and 1, as exact binary fractions."""
    at = (np.arange(width) + 0.5) / max(width, 1)
    smooth = at * at * (3 - 2 * at)
    return (np.rint(smooth * _WEIGHT_STEPS) / _WEIGHT_STEPS).astype(np.float32)
