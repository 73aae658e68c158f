"""Joins tiles: neighbours fade into each other over the overlap; everywhere else a pixel is one tile's.

A fade is a + (b - a) w, not a w1 + b w2: where the tiles agree the result is their value to the last bit.
Since fades of one axis never meet (the plan keeps the overlap to a third of a tile), the weights of all
tiles sum to exactly 1 at every pixel; `weights` states them for the tests and for whoever wants to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.tiling.grid import Plan
from serve_app.tiling.levels import Levels, Pixels, from_levels

_WEIGHT_STEPS = 1024


def blend(tiles: Sequence[Levels], plan: Plan) -> Pixels:
    """Puts the result together.

    Args:
        tiles: One (tile_px, tile_px, channels) array for each of `plan.tiles`, in that order.
        plan: Where they lie.

    Returns:
        (result height, result width, channels) in [0, 1].
    """
    across = len(plan.lefts)
    strips = [
        _join(tiles[first : first + across], plan.lefts, plan, plan.canvas.width, axis=1)
        for first in range(0, len(tiles), across)
    ]
    canvas = _join(strips, plan.tops, plan, plan.canvas.height, axis=0)
    return from_levels(canvas[: plan.result.height, : plan.result.width])


def weights(origins: Sequence[int], tile_px: int, overlap_px: int, length: int) -> Pixels:
    """The weight of each tile along one axis.

    Returns:
        (tiles, length), in multiples of 1/1024, each column summing to exactly 1.
    """
    table = np.zeros((len(origins), length), np.float32)
    for row, origin in enumerate(origins):
        table[row, origin : origin + tile_px] = 1
    rising = _ramp(overlap_px)
    for row, start in enumerate(_fades(origins, tile_px, overlap_px)):
        stop = start + overlap_px
        table[row, start:stop] = 1 - rising
        table[row, stop:] = 0
        table[row + 1, :start] = 0
        table[row + 1, start:stop] = rising
    return table


def _join(
    parts: Sequence[NDArray[Any]],
    origins: Sequence[int],
    plan: Plan,
    length: int,
    axis: int,
) -> Pixels:
    """Joins parts of `tile_px` along an axis; computes in float32."""
    shape = list(parts[0].shape)
    shape[axis] = length
    joined = np.empty(shape, np.float32)
    view, side = np.moveaxis(joined, axis, 0), plan.tile_px
    view[:side] = np.moveaxis(parts[0], axis, 0)
    rising = _ramp(plan.overlap_px).reshape(-1, *[1] * (joined.ndim - 1))
    fades = _fades(origins, side, plan.overlap_px)
    for part, origin, start in zip(parts[1:], origins[1:], fades, strict=True):
        new, stop = np.moveaxis(part, axis, 0), start + plan.overlap_px
        old = view[start:stop]
        old += (new[start - origin : stop - origin] - old) * rising
        view[stop : origin + side] = new[stop - origin :]
    return joined


def _fades(origins: Sequence[int], tile_px: int, overlap_px: int) -> list[int]:
    """Where each fade begins: in the middle of what two neighbours share."""
    return [new + (old + tile_px - new - overlap_px) // 2 for old, new in pairwise(origins)]


def _ramp(width: int) -> Pixels:
    """Smoothly rising weights strictly between 0 and 1, as exact binary fractions."""
    at = (np.arange(width) + 0.5) / max(width, 1)
    smooth = at * at * (3 - 2 * at)
    return (np.rint(smooth * _WEIGHT_STEPS) / _WEIGHT_STEPS).astype(np.float32)
