"""Where faces are in a picture, by dlib's detector, whose model is part of the library: nothing is fetched.

It finds faces that look at the camera, from about 80 px in the picture that it reads; so small pictures are
enlarged for it first. What it was seen to find and to miss: docs/presets.md. This module refuses to know
what is done about a face.

Source: dlib, `get_frontal_face_detector`; N. Dalal and B. Triggs, "Histograms of oriented gradients for human
detection", 2005.
"""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from typing import Any

import numpy as np

from serve_app.levels import Levels, from_levels
from serve_app.resample import resize
from serve_app.tiling.geometry import Size, Tile

_MOST_PIXELS = 16_000_000  # of what the detector reads: 0.8 s on a core
_MOST_ENLARGED = 4.0  # past it there is nothing more to see
_LEAST_SCORE = 0.25  # what scored below it on 333 photographs was mostly none
_MARGIN = 0.3  # of a face's side, on each: hair, ears and chin
_BAND_ROWS = 256
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def can_find() -> bool:
    """Whether the detector is installed: there is no build of it for every machine."""
    return importlib.util.find_spec("dlib") is not None


def find_faces(colour: Levels) -> list[Tile]:
    """Finds faces.

    Args:
        colour: (h, w, 3), upright.

    Returns:
        Rectangles in px of the picture, with some room around each face, from the top; at least a pixel each.
    """
    height, width = colour.shape[:2]
    scale = min(_MOST_ENLARGED, math.sqrt(_MOST_PIXELS / (height * width)))
    seen = Size(max(round(height * scale), 1), max(round(width * scale), 1))
    boxes, scores, _ = _detector().run(_gray(colour, seen), 0, _LEAST_SCORE)
    del scores
    found = {_in_source(box, seen, Size(height, width)) for box in boxes}
    return sorted(found)


@cache
def _detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


def _gray(colour: Levels, size: Size) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Luma with 8 bits at another size; in bands until it is luma, so that little is held."""
    luma = np.empty(colour.shape[:2], np.float32)
    for top in range(0, len(colour), _BAND_ROWS):
        luma[top : top + _BAND_ROWS] = from_levels(colour[top : top + _BAND_ROWS]) @ _LUMA
    scaled = np.clip(resize(luma, size.height, size.width), 0, 1)
    return np.rint(scaled * 255).astype(np.uint8)


def _in_source(box: Any, seen: Size, source: Size) -> Tile:
    margin = _MARGIN * box.width()
    down, across = source.height / seen.height, source.width / seen.width
    top = _inside((box.top() - margin) * down, source.height - 1)
    left = _inside((box.left() - margin) * across, source.width - 1)
    bottom = _inside((box.bottom() + 1 + margin) * down, source.height)
    right = _inside((box.right() + 1 + margin) * across, source.width)
    return Tile(top, left, max(bottom - top, 1), max(right - left, 1))


def _inside(place: float, last: int) -> int:
    return min(max(round(place), 0), last)
