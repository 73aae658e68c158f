"""Transparency while scaling: nothing that is invisible may become visible.

The colour stored where a picture is fully transparent is arbitrary, often black or white. Scaled as it is, it
bleeds into the edge as a halo. So colour is weighed by alpha while it is scaled, and what a network sees
in transparent places is an extension of the visible colours. This module refuses to know file formats.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from serve_app.levels import Levels, Pixels, from_levels, to_levels
from serve_app.resample import resize

_SURE_ALPHA = 4 / 255
"""Below this the filter's ringing outweighs what little is visible, so colour takes no more from there."""

_BAND = 256  # rows turned to floats at once; even, so that no 2 x 2 is cut
_FILTER_ROWS = 4  # more than the filter's reach: a band is filled as the whole would be


def fill_transparent(colour: Pixels, alpha: Pixels) -> Pixels:
    """Gives fully transparent places an extension of the visible colours around them.

    Each level of a pyramid holds the alpha-weighted mean colour of 2 x 2 places of the finer one. What
    is wholly or partly hidden takes the rest from the coarser level, smoothly enlarged.

    Args:
        colour: (H, W, 3) float32, [0, 1], straight (not premultiplied); it is not changed.
        alpha: (H, W) float32, [0, 1].

    Returns:
        (H, W, 3) float32, [0, 1]; equal to `colour` wherever alpha is above 0, and everywhere if nothing
        is transparent or nothing is visible.

    Source:
        S. J. Gortler et al., "The lumigraph", 1996, section 3.4: pull-push.
    """
    visible = alpha > 0
    if visible.all() or not visible.any():
        return colour
    weight = alpha[:, :, None]
    return np.where(visible[:, :, None], colour, _extend(colour * weight, weight))


def fill_levels(colour: Levels, alpha: Levels) -> None:
    """Fills in place as `fill_transparent` does, but from half the size: close to it where colours are smooth.

    It goes in bands: floats are held at half the size and no larger.

    Args:
        colour: (H, W, 3), straight; changed where alpha is 0.
        alpha: (H, W).
    """
    if alpha.all() or not alpha.any():
        return
    height, width = alpha.shape
    halves = [_halve(colour[top:][:_BAND], alpha[top:][:_BAND]) for top in range(0, height, _BAND)]
    under = _extend(*(np.concatenate(parts) for parts in zip(*halves, strict=True)))
    for top in range(0, height, _BAND):
        hidden = alpha[top : top + _BAND] == 0
        if hidden.any():
            first = max(0, top // 2 - _FILTER_ROWS)
            rows = under[first : (top + _BAND) // 2 + _FILTER_ROWS]
            enlarged = resize(rows, 2 * len(rows), 2 * rows.shape[1])[top - 2 * first :]
            band = colour[top : top + _BAND]
            band[hidden] = to_levels(enlarged[: len(band), :width][hidden])


def _halve(colour: Levels, alpha: Levels) -> tuple[Pixels, Pixels]:
    weight = from_levels(alpha)[:, :, None]
    return _gather(from_levels(colour) * weight, weight)


def resize_with_alpha(
    colour: Pixels, alpha: Pixels, height: int, width: int
) -> tuple[Pixels, Pixels]:
    """Scales colour weighed by alpha, so that transparent places lend no colour to visible ones.

    Args:
        colour: (H, W, 3) float32, [0, 1], straight.
        alpha: (H, W) float32, [0, 1].
        height: Rows of the result, 1 or more.
        width: Columns of the result, 1 or more.

    Returns:
        Colour (height, width, 3), straight, and alpha (height, width), both float32 in [0, 1].
    """
    filled = fill_transparent(colour, alpha)
    return scale_with_alpha(filled, alpha, lambda pixels: resize(pixels, height, width))


def scale_with_alpha(
    filled: Pixels, alpha: Pixels, scale: Callable[[Pixels], Pixels]
) -> tuple[Pixels, Pixels]:
    """Does what `resize_with_alpha` does with whatever scales, such as some rows of a larger picture.

    Args:
        filled: (H, W, 3) float32, [0, 1], straight; extended where it is transparent.
        alpha: (H, W) float32, [0, 1].
        scale: From (H, W) or (H, W, 3) to what is wanted of it, enlarged.

    Returns:
        Colour, straight, and alpha, both float32 in [0, 1].
    """
    scaled_alpha = scale(alpha)
    weight = scaled_alpha[:, :, None]
    weighed = scale(filled * alpha[:, :, None])
    # Where little is visible a quotient is unstable, so the extended colour makes up the weight.
    missing = np.maximum(_SURE_ALPHA - weight, 0)
    if missing.any():
        weighed += missing * scale(filled)
    weighed /= np.maximum(weight, _SURE_ALPHA)
    # The clip of alpha makes a copy: where no size changes, it is still the caller's array.
    return np.clip(weighed, 0, 1, out=weighed), np.clip(scaled_alpha, 0, 1)


def _extend(weighed: Pixels, weight: Pixels) -> Pixels:
    """Lays (H, W, 3) colour, weighed by (H, W, 1) weight in [0, 1], over the coarser levels' colour."""
    if weight.size == 1:
        return weighed / weight
    rest = 1 - weight
    if not rest.any():
        return weighed
    height, width = weight.shape[:2]
    under = np.clip(resize(_extend(*_gather(weighed, weight)), height, width), 0, 1)
    laid: Pixels = weighed + rest * under
    return laid


def _gather(weighed: Pixels, weight: Pixels) -> tuple[Pixels, Pixels]:
    """Sums each 2 x 2; a weight saturates at 1, so that a lone visible pixel speaks for its surroundings."""
    total = _sum_by_four(weight)
    excess: Pixels = np.maximum(total, 1)
    return _sum_by_four(weighed) / excess, total / excess


def _sum_by_four(planes: Pixels) -> Pixels:
    padded = np.pad(planes, ((0, planes.shape[0] % 2), (0, planes.shape[1] % 2), (0, 0)))
    rows = padded[0::2] + padded[1::2]
    total: Pixels = rows[:, 0::2] + rows[:, 1::2]
    return total
