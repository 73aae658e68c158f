"""Numbers that say how faithful a result is to its source, without the truth at hand.

They compare pixels only. What number is good enough is decided elsewhere.
"""

from __future__ import annotations

import math

import numpy as np

from serve_app.resample import Pixels, resize

BEST_PSNR_DB = 120.0
"""Reported for equal pictures: past it lies only the rounding of 32-bit numbers."""


def lr_psnr(result: Pixels, source: Pixels) -> float:
    """How well a result, scaled down to its source's size, shows its source.

    Args:
        result: (H, W, C) or (H, W) float32, [0, 1].
        source: (h, w, C) or (h, w) float32, [0, 1].

    Returns:
        The peak signal-to-noise ratio over all channels, dB, at most `BEST_PSNR_DB`.

    Raises:
        ValueError: if the channels differ.

    Source:
        A. Lugmayr et al., "NTIRE 2021 learning the super-resolution space challenge": the LR-PSNR.
    """
    if result.shape[2:] != source.shape[2:]:
        raise ValueError(f"the channels of {result.shape} and {source.shape} differ")
    error = resize(result, *source.shape[:2]) - source
    mean_square = float(np.mean(np.square(error), dtype=np.float64))
    if mean_square <= 10 ** (-BEST_PSNR_DB / 10):
        return BEST_PSNR_DB
    return -10 * math.log10(mean_square)
