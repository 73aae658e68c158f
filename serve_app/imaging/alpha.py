"""Transparency while scaling: nothing that is invisible may become visible.

The colour stored where a picture is fully transparent is arbitrary, often black or white. Scaled as it is, it
bleeds into the edge as a halo. So colour is weighed by alpha while it is scaled, and what a network sees
in transparent places is an extension of the visible colours. This module refuses to know file formats.
"""

from __future__ import annotations

import numpy as np

from serve_app.resample import Pixels, resize

_SURE_ALPHA = 4 / 255
"""Below this the filter's ringing outweighs what little is visible, so colour takes no more from there."""


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
    scaled_alpha = resize(alpha, height, width)
    weight = scaled_alpha[:, :, None]
    weighed = resize(filled * alpha[:, :, None], height, width)
    # Where little is visible a quotient is unstable, so the extended colour makes up the weight.
    missing = np.maximum(_SURE_ALPHA - weight, 0)
    if missing.any():
        weighed += missing * resize(filled, height, width)
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
