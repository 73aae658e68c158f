"""Draws a picture's rows into upright arrays of levels, band by band, whatever way the file keeps them.

Gray, palettes, one colour declared transparent, 16 bits, ink colours: a decoder's bands all leave here as the
same two arrays. Only they are held whole; what a decoder delivers is turned to levels a few rows at a time.
This module refuses to know bytes, limits and errors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyvips

from serve_app.imaging.colour import to_levels, to_srgb
from serve_app.imaging.inspect import Header
from serve_app.levels import Levels

_BAND_ROWS = 128

Allocate = Callable[[tuple[int, ...]], Levels]


def draw(
    image: pyvips.Image, header: Header, allocate: Allocate
) -> tuple[Levels, Levels | None, bytes | None]:
    """Computes a picture.

    Args:
        image: As its decoder delivers it.
        header: What the file says of itself; it gives the orientation and the bits of a sample.
        allocate: Makes the arrays that are returned.

    Returns:
        Colour (H, W, 3), sRGB, straight, as stored also where nothing is visible; alpha (H, W), or None if
        the file has no transparency; and the profile in which a result can be written back.
    """
    colour, alpha = _split(image, header)
    colour, profile = to_srgb(colour)
    levels = allocate((header.height, header.width, 3))
    opacity = None if alpha is None else allocate((header.height, header.width))
    stack = colour
    if alpha is not None:
        same = colour.format == alpha.format
        stack = colour.bandjoin(alpha) if same else to_levels(colour).bandjoin(to_levels(alpha))
    into = _as_stored(levels, header.orientation)
    into_opacity = None if opacity is None else _as_stored(opacity, header.orientation)
    sample, factor = (np.uint16, 1) if stack.format == "ushort" else (np.uint8, 257)
    region = pyvips.Region.new(stack)
    for top in range(0, stack.height, _BAND_ROWS):
        rows = slice(top, min(top + _BAND_ROWS, stack.height))
        fetched = region.fetch(0, top, stack.width, rows.stop - top)
        band = np.frombuffer(fetched, sample).reshape(-1, stack.width, stack.bands)
        np.multiply(band[:, :, : colour.bands], factor, out=into[rows], dtype=np.uint16)
        if into_opacity is not None:
            np.multiply(band[:, :, -1], factor, out=into_opacity[rows], dtype=np.uint16)
    return levels, opacity, profile


def _split(image: pyvips.Image, header: Header) -> tuple[pyvips.Image, pyvips.Image | None]:
    """Takes a decoder's 1 to 5 bands apart: 1, 3 or, for inks, 4 of colour, and alpha."""
    inks = image.interpretation == "cmyk"
    colours = 4 if inks else 3 if image.bands >= 3 else 1
    colour = image.extract_band(0, n=colours) if image.bands > colours else image
    if image.bands == colours or not header.has_alpha:
        return colour, None
    return colour, image.extract_band(colours)


def _as_stored(upright: Levels, orientation: int) -> Levels:
    """A view of upright pixels, laid out as the file stores them. Source: EXIF 2.32, tag 0x0112."""
    view = upright
    if orientation in (3, 4, 7, 8):
        view = view[::-1]
    if orientation in (2, 3, 6, 7):
        view = view[:, ::-1]
    return view.swapaxes(0, 1) if orientation >= 5 else view
