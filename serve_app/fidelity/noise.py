"""What a source's noise and JPEG blocks are, and how much less firmly a result is then tied to it.

Tied firmly, a result shows its source's noise and blocks again. This module judges a sample of a source's
places, so that a large picture costs no more than one of a megapixel; it refuses to know the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.levels import Levels, from_levels

_PATCH_PX = 64  # a multiple of a JPEG block's side, as are the patches' origins
_MOST_PATCHES = 256
_BLOCK_PX = 8
_CELL_PX = 8  # of the diagonal detail; 16 px of the source
_QUIETEST = 0.1  # share of the cells that are taken as flat
_QUIET_BIAS = 1.13  # the quietest tenth of cells of pure noise show so much less; measured
_CLIPPED = 0.01  # as near to black or white as this a cell hides its noise
_EDGE = 0.1  # of 1: a step this far is one of the picture's own


@dataclass(frozen=True, slots=True)
class SourceFaults:
    """What was found in a source.

    Attributes:
        noise: Standard deviation of its noise, of 0 to 1.
        blocking: How much larger the steps at the borders of 8-px blocks are than those beside them; 0 is none.
    """

    noise: float
    blocking: float


def judge_source(source: Levels) -> SourceFaults:
    """Estimates noise and blocking.

    Args:
        source: (h, w, 3); one too small to tell is taken as clean.

    Source:
        J. Immerkaer, "Fast noise variance estimation", 1996, for the idea; the noise is read from the diagonal
        detail of a Haar transform (D. Donoho and I. Johnstone, 1994) at the picture's quietest cells.
    """
    patches = [_green(source[rows, columns]) for rows, columns in _places(*source.shape[:2])]
    if not patches:
        return SourceFaults(0.0, 0.0)
    down = _blocking([patch.T for patch in patches])
    return SourceFaults(_noise(patches), max(0.0, (_blocking(patches) + down) / 2))


def lowered(default: float, faults: SourceFaults) -> float:
    """The strength for a source with faults.

    Args:
        default: For a clean source, 0 to 1.
        faults: Of the source.

    Returns:
        0 to `default`: half of it at a noise of 4 levels of 255, and where steps at the
        borders of blocks are a third larger than those beside them.
    """
    noise = faults.noise * 255
    kept = 1 / (1 + (max(noise - 1.0, 0.0) / 3.0) ** 2)
    kept *= 1 / (1 + (max(faults.blocking - 0.08, 0.0) / 0.25) ** 2)
    return default * kept


def _places(height: int, width: int) -> list[tuple[slice, slice]]:
    """Patches on a lattice over the whole picture; one that is smaller than a patch is one patch."""
    down = range(0, max(height - _PATCH_PX, 0) + 1, _PATCH_PX)
    across = range(0, max(width - _PATCH_PX, 0) + 1, _PATCH_PX)
    step = max(1, round((len(down) * len(across) / _MOST_PATCHES) ** 0.5))
    if min(height, width) < 2 * _CELL_PX:
        return []
    return [
        (slice(top, top + _PATCH_PX), slice(left, left + _PATCH_PX))
        for top in down[::step]
        for left in across[::step]
    ]


def _green(patch: Levels) -> NDArray[np.float32]:
    """Green: the most of luma, and its noise is a channel's own, not the less of a mean of three."""
    return from_levels(patch[:, :, 1])


def _noise(patches: list[NDArray[np.float32]]) -> float:
    spreads = []
    for patch in patches:
        height, width = (side // (2 * _CELL_PX) * _CELL_PX for side in patch.shape)
        a, b, c, d = (patch[y : 2 * height : 2, x : 2 * width : 2] for y in (0, 1) for x in (0, 1))
        cells = (height // _CELL_PX, _CELL_PX, width // _CELL_PX, _CELL_PX)
        fine = ((a - b - c + d) / 2).reshape(cells)
        # A few strokes on an even ground are no noise: there, most of the detail is nothing.
        typical = np.median(np.abs(fine), axis=(1, 3))
        detail = np.minimum(fine.std(axis=(1, 3)), 3 * typical)
        light = ((a + b + c + d) / 4).reshape(cells).mean(axis=(1, 3))
        spreads.append(detail[(light > _CLIPPED) & (light < 1 - _CLIPPED)])
    found = np.concatenate(spreads)
    return float(np.quantile(found, _QUIETEST)) * _QUIET_BIAS if len(found) else 0.0


def _blocking(patches: list[NDArray[np.float32]]) -> float:
    """Steps across columns 8, 16, ... over the mean of their neighbours', less 1; in quiet rows most of all."""
    border, beside, edges, places = 0.0, 1e-6, 0, 1
    for patch in patches:
        steps = np.abs(np.diff(patch, axis=1))
        at = np.arange(_BLOCK_PX - 1, steps.shape[1] - 2, _BLOCK_PX)
        edges, places = edges + int((steps[:, at] > _EDGE).sum()), places + steps[:, at].size
        steps = np.minimum(steps, _EDGE)  # an edge is no block
        near = (steps[:, at - 2] + steps[:, at - 1] + steps[:, at + 1] + steps[:, at + 2]) / 4
        border += float(steps[:, at].sum())
        beside += float(near.sum())
    if edges > places / 4:  # drawn on this grid, as pixel art is: no JPEG steps so far so often
        return 0.0
    return (border + 1e-4) / (beside + 1e-4) - 1
