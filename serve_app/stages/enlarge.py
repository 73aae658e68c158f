"""A source and its enlargement, of which only the rows that are asked for are ever made.

What travels between processes are levels (16 bit), never floats: see `levels`. This module refuses to know
tiles, files and what the rows are for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serve_app.imaging.alpha import scale_with_alpha
from serve_app.imaging.traits import Traits
from serve_app.levels import Levels, Pixels, from_levels, to_levels
from serve_app.resample import resize, resize_rows, source_rows
from serve_app.tiling.geometry import Size

_BAND_ROWS = 64  # enlarged at once; bounds what is held as floats


@dataclass(frozen=True, slots=True)
class Source:
    """A decoded source, kept until the end: the result is tied to it.

    Attributes:
        colour: (height, width, 3); transparent places filled from their neighbours.
        alpha: (height, width), or None for an opaque picture.
        traits: What else its file says.
    """

    colour: Levels
    alpha: Levels | None
    traits: Traits


def enlarged_rows(source: Source, size: Size, top: int, bottom: int) -> Levels:
    """Some rows of what `upscale` reads: the source at the result's size, colour weighed by alpha.

    Args:
        source: The decoded source.
        size: The result's, at least the source's.
        top: The first row.
        bottom: The row below the last one.

    Returns:
        (bottom - top, width, 3), bit-equal to those rows of the whole enlarged.
    """
    rows = np.empty((bottom - top, size.width, 3), np.uint16)
    for first in range(top, bottom, _BAND_ROWS):
        end = min(first + _BAND_ROWS, bottom)
        rows[first - top : end - top] = _colour_rows(source, size, first, end)
    return rows


def alpha_rows(alpha: Levels, size: Size, top: int, bottom: int) -> Pixels:
    """Some rows of transparency at the result's size, (bottom - top, width) in [0, 1]."""
    at = source_rows(len(alpha), size.height, top, bottom)
    scaled = _scaled(from_levels(alpha[at.start : at.stop]), at, len(alpha), size, top, bottom)
    return np.clip(scaled, 0, 1)


def _colour_rows(source: Source, size: Size, top: int, bottom: int) -> Levels:
    length = len(source.colour)
    at = source_rows(length, size.height, top, bottom)
    colour = from_levels(source.colour[at.start : at.stop])
    if source.alpha is None:
        return to_levels(_scaled(colour, at, length, size, top, bottom))
    alpha = from_levels(source.alpha[at.start : at.stop])
    found, _ = scale_with_alpha(
        colour, alpha, lambda pixels: _scaled(pixels, at, length, size, top, bottom)
    )
    return to_levels(found)


def _scaled(pixels: Pixels, at: range, length: int, size: Size, top: int, bottom: int) -> Pixels:
    """The rows `at` of a picture become the result's rows; columns first, as `resize` does enlarging."""
    across = resize(pixels, len(at), size.width)
    return resize_rows(across, at.start, length, size.height, top, bottom)
