"""Canny's edges: a white line, one pixel wide, wherever the picture changes steeply.

They are drawn at the result's size, since that is what a tile shows its ControlNet. This module refuses to
know tiles and networks.
"""

from __future__ import annotations

import cv2
import numpy as np

from serve_app.levels import TOP_LEVEL, Levels

# Source: the thresholds of ControlNet's own demonstration and of diffusers' examples, on sharp 8-bit pictures.
LOW_THRESHOLD = 100
HIGH_THRESHOLD = 200

_TO_8_BIT = 8  # a shift; it gives every 8-bit value back


def canny(colour: Levels, enlargement: float) -> Levels:
    """Draws the edges of an enlarged picture.

    Enlarging a picture makes its slopes gentler by as much, so the thresholds are divided by it. Without that a
    photograph at x4 loses a third to four fifths of the lines that its sharp original has, and keeps 96 to
    100 % with it; docs/controls.md has the figures.

    Args:
        colour: (height, width, 3); of the channels, the steepest counts at each pixel.
        enlargement: By how much a side was enlarged, 1 or more.

    Returns:
        (height, width, 1): `TOP_LEVEL` on an edge, 0 beside it.

    Source:
        J. Canny, "A computational approach to edge detection", 1986, as OpenCV computes it.
    """
    samples = (colour >> _TO_8_BIT).astype(np.uint8)
    edges = cv2.Canny(samples, LOW_THRESHOLD / enlargement, HIGH_THRESHOLD / enlargement)
    return np.where(edges[:, :, None] > 0, np.uint16(TOP_LEVEL), np.uint16(0))
