"""Pixels between processes: 16-bit levels, 0 to 65535 for 0 to 1.

Half of float32's weight, and exact where it matters: an 8-bit value v is level 257 v, a 16-bit value is
itself, and float32 holds every level, so that blending equal tiles changes no bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint16]
Pixels = NDArray[np.float32]

TOP_LEVEL = 65535


def to_levels(pixels: Pixels) -> Levels:
    """Quantises pixels in [0, 1], any shape; values outside are clipped."""
    scaled = np.clip(pixels, 0, 1) * np.float32(TOP_LEVEL)
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint16)


def from_levels(levels: NDArray[np.uint16] | Pixels) -> Pixels:
    """Turns levels, which may be fractions after blending, back to pixels in [0, 1]."""
    return levels.astype(np.float32) / np.float32(TOP_LEVEL)
