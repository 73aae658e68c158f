"""Tells a tile that shows nothing of its source from one that merely changed it.

Networks fail silently: now and then a tile comes out black, brown, inverted, as noise, or as another picture.
What no honest result does is to lose the coarse brightness and colour of its source, or to cover a quiet place
with strong noise. So both are summed up on a coarse grid and compared. This module refuses to know why a tile
failed, what is done about it, and NaN: that is found before there are levels.

The thresholds were measured on the embedded model: see docs/fidelity.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serve_app.levels import TOP_LEVEL, Levels

GRID = 8
"""Cells on each side of a tile; at least so many pixels a side are needed."""
MOST_DRIFT = 0.16
"""Root mean square of the cells' differences, of 0 to 1, past which a tile is garbage."""
MOST_DETAIL = 0.12
"""Mean step between neighbouring pixels, beyond twice the source's, past which a tile is noise."""
_FLAT = 0.004  # of a tile: spread of its cells, one level of 8 bits
_LIVELY = 0.03  # of a source: spread of its cells from which on a flat tile can't be its picture
_FIRM = 0.5  # hold from which on a flat tile and a noisy one are faults

Summary = NDArray[np.float32]


def means_of(crop: Levels) -> Summary:
    """Sums a picture up on a coarse grid.

    Args:
        crop: (height, width, 3), each side `GRID` px or more.

    Returns:
        (GRID, GRID, 4) in [0, 1]: means of red, green and blue, and the mean step of green
        to the next pixel.
    """
    height, width = (side // GRID * GRID for side in crop.shape[:2])
    kept = crop[:height, :width]
    cells = kept.reshape(GRID, height // GRID, GRID, width // GRID, 3)
    green = kept[:, :, 1].astype(np.int32)
    steps = np.abs(np.diff(green, axis=1, append=green[:, -1:]))
    blocks = steps.reshape(GRID, height // GRID, GRID, width // GRID)
    found = np.empty((GRID, GRID, 4), np.float32)
    found[..., :3] = cells.mean(axis=(1, 3), dtype=np.float32)
    found[..., 3] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return found / np.float32(TOP_LEVEL)


def fault_of(tile: Levels, crop_means: Summary, hold: float = 1.0) -> str | None:
    """Says what is wrong with a tile, in a phrase that follows "tile 7", or None.

    Args:
        tile: (height, width, 3), as the network gave it.
        crop_means: Of its enlarged source.
        hold: How firmly the source was held, 0 to 1 of what the model does by default: with half of it twice
            the drift is honest, and with nothing any picture is.
    """
    if hold <= 0:
        return None
    found = means_of(tile)
    drift = float(np.sqrt(np.mean(np.square(found[..., :3] - crop_means[..., :3]))))
    if drift > MOST_DRIFT / hold:
        return f"came out with other colours than its source, by {drift:.2f} of 1"
    if hold < _FIRM:
        return None
    spread = float(crop_means[..., :3].std(axis=(0, 1)).max())
    if float(found[..., :3].std(axis=(0, 1)).max()) < _FLAT and spread > _LIVELY:
        return "came out flat, but its source is not"
    noise = float(np.mean(np.maximum(found[..., 3] - 2 * crop_means[..., 3], 0)))
    return f"came out as noise, with steps of {noise:.2f} of 1" if noise > MOST_DETAIL else None
