"""What a source's noise and JPEG blocks are, and how much less firmly a result is then tied to it.

Tied firmly, a result shows its source's noise and blocks again. This module judges a sample of a source's
places, so that a large picture costs no more than one of a megapixel; it refuses to know the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from serve_app.fidelity.denoise import block_cosines
from serve_app.levels import Levels, Pixels, from_levels

_PATCH_PX = 64  # a multiple of a JPEG block's side, as are the patches' origins
_MOST_PATCHES = 256
_BLOCK_PX = 8
_LEAST_SIDE_PX = 2 * _BLOCK_PX
_WINDOW_PX = 5  # what noise is told from texture in
_MOST_WINDOWS = 40_000  # a larger picture's lie farther apart
_LEAST_WINDOWS = 150  # six for each pixel of one; fewer tell no noise
_UNREST = 2.3  # times the variance of white noise: hardly a window of nothing else is less quiet
_MOST_ROUNDS = 12
_HALVED_FROM_PX = 384  # soft noise shows at half size; so does a smaller picture's texture
_CLIPPED = 0.01  # as near to black or white as this a window hides its noise
_SHIFTS_PX = (2, 4, 6)  # grids that no JPEG was coded on, unless it was cropped
_COARSE = 3  # up to this sum of a coefficient's two frequencies JPEG keeps it
_FINE = 8  # and from this on it spares the bits
_EDGE = 8 / 255  # what a coefficient counts at most: an edge is no block
_EVEN = 0.05 / 255  # as little detail as that is none
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True)
class SourceFaults:
    """What was found in a source.

    Attributes:
        noise: Standard deviation of its noise, of 0 to 1.
        blocking: Share of the fine detail that JPEG's blocks of 8 px lack beside blocks laid elsewhere: 0 to 1.
    """

    noise: float
    blocking: float


def judge_source(source: Levels, alpha: Levels | None = None) -> SourceFaults:
    """Estimates noise and blocking.

    Args:
        source: (h, w, 3); one too small to tell is taken as clean.
        alpha: (h, w) where the source is transparent. What is hidden there is smooth by our own doing and tells
            nothing.

    Source:
        The noise is the least eigenvalue of the quiet windows' covariance, after X. Liu, M. Tanaka and
        M. Okutomi, "Single-image noise level estimation for blind denoising", 2013, and S. Pyatykh, J. Hesser
        and L. Zheng, "Image noise level estimation by principal component analysis", 2013.
    """
    places = _places(*source.shape[:2])
    if alpha is not None:
        places = [place for place in places if alpha[place].any()]
    patches = [from_levels(source[place]) for place in places]
    if not patches:
        return SourceFaults(0.0, 0.0)
    # Green is the most of luma, and its noise is a channel's own, not the less of a mean of three.
    greens = [patch[:, :, 1] for patch in patches]
    for green, place in zip(greens, places, strict=True):
        if alpha is not None:
            green[alpha[place] == 0] = np.nan
    noise = _noise(greens)
    if min(source.shape[:2]) >= _HALVED_FROM_PX:
        noise = max(noise, _noise([_halved(green) for green in greens]))
    whole = [patch for patch in patches if np.isfinite(patch[:, :, 1]).all()]
    return SourceFaults(noise, _blocking(whole) if whole else 0.0)


def lowered(default: float, faults: SourceFaults) -> float:
    """The strength for a source with faults.

    Args:
        default: For a clean source, 0 to 1.
        faults: Of the source.

    Returns:
        0 to `default`: two thirds of it at a noise of 2 levels of 255, a sixteenth at 5, next to nothing at 10;
        a half where JPEG's blocks lack four tenths of the fine detail, a sixth where they lack three quarters.
        There the best strengths were measured: docs/fidelity.md.
    """
    noise = faults.noise * 255
    by_noise = 1 / (1 + (max(noise - 1.0, 0.0) / 1.3) ** 2.5)
    by_blocks = 1 / (1 + (max(faults.blocking - 0.1, 0.0) / 0.3) ** 2)
    return float(default * by_noise * by_blocks)


def _places(height: int, width: int) -> list[tuple[slice, slice]]:
    """Patches on a lattice over the whole picture; one that is smaller than a patch is one patch."""
    down = range(0, max(height - _PATCH_PX, 0) + 1, _PATCH_PX)
    across = range(0, max(width - _PATCH_PX, 0) + 1, _PATCH_PX)
    step = max(1, round((len(down) * len(across) / _MOST_PATCHES) ** 0.5))
    if min(height, width) < _LEAST_SIDE_PX:
        return []
    return [
        (slice(top, top + _PATCH_PX), slice(left, left + _PATCH_PX))
        for top in down[::step]
        for left in across[::step]
    ]


def _noise(patches: list[Pixels]) -> float:
    """The largest noise that quiet windows agree on.

    White noise is as strong along each direction that a window can vary in, texture nearly absent in some. So
    the weakest direction bounds the noise from above. Windows less quiet than noise of that size hold something
    else, too; they are put aside and the bound falls, until it stays.
    """
    windows = _windows(patches)
    if len(windows) < _LEAST_WINDOWS:
        return 0.0
    across, down = windows[:, :, 2:] - windows[:, :, :-2], windows[:, 2:] - windows[:, :-2]
    unrest = (np.square(across).mean(axis=(1, 2)) + np.square(down).mean(axis=(1, 2))) / 4
    order = np.argsort(unrest)
    windows, unrest = windows[order], unrest[order]
    variance = _weakest(windows)
    for _ in range(_MOST_ROUNDS):
        quiet = max(int(np.searchsorted(unrest, variance * _UNREST)), _LEAST_WINDOWS)
        lower = min(_weakest(windows[:quiet]), variance)
        if lower > 0.999 * variance:
            break
        variance = lower
    return float(np.sqrt(variance))


def _halved(plane: Pixels) -> Pixels:
    """Means of 2 x 2 px: white noise loses half of itself there, soft noise less."""
    height, width = (side // 2 for side in plane.shape)
    cells = plane[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    return np.asarray(cells.mean(axis=(1, 3)))


def _windows(patches: list[Pixels]) -> NDArray[np.float64]:
    """(n, side, side); those that hold a NaN left out, and black and white ones unless most are.

    A page is drawn on black or white.
    """
    side = (_WINDOW_PX, _WINDOW_PX)
    places = sum((p.shape[0] - _WINDOW_PX + 1) * (p.shape[1] - _WINDOW_PX + 1) for p in patches)
    step = max(1, math.ceil(math.sqrt(places / _MOST_WINDOWS)))
    found = [sliding_window_view(patch, side)[::step, ::step] for patch in patches]
    windows = np.concatenate([view.reshape(-1, *side) for view in found]).astype(np.float64)
    light = windows.mean(axis=(1, 2))
    windows, light = windows[np.isfinite(light)], light[np.isfinite(light)]
    lit = (light > _CLIPPED) & (light < 1 - _CLIPPED)
    return np.asarray(windows[lit] if 2 * lit.sum() > len(lit) else windows)


def _weakest(windows: NDArray[np.float64]) -> float:
    """Variance along the weakest direction; that of few windows is smaller by chance, which is put right."""
    flat = windows.reshape(len(windows), -1)
    least = max(float(np.linalg.eigvalsh(np.cov(flat.T))[0]), 0.0)
    return least / (1 - math.sqrt(flat.shape[1] / len(flat))) ** 2


def _blocking(patches: list[Pixels]) -> float:
    """How much less fine detail lies in JPEG's own blocks than in shifted ones.

    What is drawn on this very grid, as pixel art is, lacks coarse detail in its blocks no less than fine.
    """
    planes = np.stack([patch @ _LUMA for patch in patches])
    (fine, coarse), *shifted = (_detail(planes, shift) for shift in (0, *_SHIFTS_PX))
    fine_share = fine / min(detail[0] for detail in shifted)
    coarse_share = coarse / min(detail[1] for detail in shifted)
    return max(0.0, 1 - fine_share / min(coarse_share, 1.0))


def _detail(planes: Pixels, shift_px: int) -> tuple[float, float]:
    """Mean size of the fine and of the coarse coefficients of blocks that begin at `shift_px`."""
    height, width = ((side - shift_px) // _BLOCK_PX * _BLOCK_PX for side in planes.shape[1:])
    placed = planes[:, shift_px : shift_px + height, shift_px : shift_px + width]
    sizes = np.minimum(np.abs(block_cosines(placed)), _EDGE).mean(axis=(0, 1, 3))
    frequency = np.add.outer(np.arange(_BLOCK_PX), np.arange(_BLOCK_PX))
    fine, coarse = frequency >= _FINE, (frequency > 0) & (frequency <= _COARSE)
    return float(sizes[fine].mean()) + _EVEN, float(sizes[coarse].mean()) + _EVEN
