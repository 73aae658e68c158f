"""Noise as a field over the whole canvas: its value depends on the seed and the place alone.

A tile crops the field, so neighbours start from the same noise where they overlap, and a retry, another
replica or another order of tiles makes no difference. The field is made in blocks; each block's numbers come
from the counter-based generator Philox, whose counter is the block's place.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011; NumPy's Philox4x64-10.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serve_app.tiling.geometry import Tile

_BLOCK = 16
_HALF_WORD = np.float64(2.0**-32)


def noise(seed: int, region: Tile, channels: int) -> NDArray[np.float32]:
    """Crops standard normal noise out of the field.

    Args:
        seed: 0 to 2**63-1.
        region: The crop, in latent pixels of the canvas.
        channels: Latent channels; part of the field's identity.

    Returns:
        (channels, height, width).
    """
    rows = range(region.top // _BLOCK, -(-region.bottom // _BLOCK))
    columns = range(region.left // _BLOCK, -(-region.right // _BLOCK))
    words = np.stack([_block(seed, row, column, channels) for row in rows for column in columns])
    field = _normal(words).reshape(len(rows), len(columns), channels, _BLOCK, _BLOCK)
    whole = field.transpose(2, 0, 3, 1, 4).reshape(
        channels, len(rows) * _BLOCK, len(columns) * _BLOCK
    )
    top, left = region.top - rows.start * _BLOCK, region.left - columns.start * _BLOCK
    crop = whole[:, top : top + region.height, left : left + region.width]
    return np.ascontiguousarray(crop, dtype=np.float32)


def _block(seed: int, row: int, column: int, channels: int) -> NDArray[np.uint64]:
    generator = np.random.Philox(counter=[0, 0, row, column], key=[seed, 0])
    words: NDArray[np.uint64] = generator.random_raw(channels * _BLOCK * _BLOCK // 2)
    return words


def _normal(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Box and Muller's transform: the two halves of each word become two normal values."""
    high, low = words >> np.uint64(32), words & np.uint64(0xFFFFFFFF)
    radius = np.sqrt(-2 * np.log((high.astype(np.float64) + 1) * _HALF_WORD))
    angle = low.astype(np.float64) * (2 * np.pi * _HALF_WORD)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
