"""The colour difference that an eye sees: CIEDE2000 between sRGB pictures. Knows no bands and no report."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serve_app.levels import Pixels

_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _TO_XYZ.sum(axis=1)  # D65, so that gray has no hue
_CHROMA_7 = 25.0**7


def to_lab(pixels: Pixels) -> NDArray[np.float32]:
    """CIE Lab (D65) of sRGB pixels (..., 3) in [0, 1]."""
    low = pixels <= np.float32(0.04045)
    raised = ((np.maximum(pixels, 0) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    linear = np.where(low, pixels / np.float32(12.92), raised)
    xyz = linear @ (_TO_XYZ / _WHITE[:, None]).T.astype(np.float32)
    kappa, limit = np.float32(24389 / 27), np.float32(216 / 24389)
    curved = np.where(xyz > limit, np.cbrt(xyz), (kappa * xyz + 16) / 116)
    x, y, z = (curved[..., axis] for axis in range(3))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.floating]:
    """The difference of Lab colours (..., 3); about 1 is the least that an eye sees side by side.

    Source:
        G. Sharma, W. Wu, E. Dalal, "The CIEDE2000 color-difference formula", 2005.
    """
    l1, a1, b1 = (one[..., axis] for axis in range(3))
    l2, a2, b2 = (other[..., axis] for axis in range(3))
    mean_c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * _share(mean_c)
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.arctan2(b1, a1) % (2 * np.pi), np.arctan2(b2, a2) % (2 * np.pi)
    turn, sides = h2 - h1, h1 + h2
    grey = c1 * c2 == 0
    far = np.abs(turn) > np.pi
    turn = np.where(grey, 0, np.where(far, turn - np.copysign(2 * np.pi, turn), turn))
    hue = np.where(
        far, np.where(sides < 2 * np.pi, sides / 2 + np.pi, sides / 2 - np.pi), sides / 2
    )
    hue = np.where(grey, sides, hue)
    dl, dc = l2 - l1, c2 - c1
    dh = 2 * np.sqrt(c1 * c2) * np.sin(turn / 2)
    mean_l, mean_c = (l1 + l2) / 2 - 50, (c1 + c2) / 2
    weight = (
        1
        - 0.17 * np.cos(hue - np.pi / 6)
        + 0.24 * np.cos(2 * hue)
        + 0.32 * np.cos(3 * hue + np.pi / 30)
        - 0.20 * np.cos(4 * hue - np.radians(63))
    )
    dl = dl / (1 + 0.015 * mean_l**2 / np.sqrt(20 + mean_l**2))
    dc = dc / (1 + 0.045 * mean_c)
    dh = dh / (1 + 0.015 * mean_c * weight)
    blue = np.radians(60) * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    rotation = -2 * _share(mean_c) * np.sin(blue)
    squared = np.maximum(dl**2 + dc**2 + dh**2 + rotation * dc * dh, 0)
    found: NDArray[np.floating] = np.sqrt(squared)
    return found


def _share(chroma: NDArray[np.floating]) -> NDArray[np.floating]:
    power = chroma**7
    found: NDArray[np.floating] = np.sqrt(power / (power + _CHROMA_7))
    return found
