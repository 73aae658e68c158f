"""A small picture of a result in the making: the tiles that are there, on a dark ground.

This module refuses to know where the tiles come from.
"""

from __future__ import annotations

import io
import threading

import numpy as np
from PIL import Image

from serve_app.levels import Levels
from serve_app.tiling.geometry import Size, Tile

SIDE_PX = 320
"""The longer side: enough to see what it will be, and a few kilobytes."""
_QUALITY = 70
_GROUND = (32, 32, 32)


class Preview:
    """A preview in the making; threads may draw on it side by side.

    Args:
        size: The result's.
    """

    def __init__(self, size: Size) -> None:
        self._factor = min(1.0, SIDE_PX / max(size.height, size.width))
        height, width = (max(1, round(side * self._factor)) for side in (size.height, size.width))
        self._canvas = Image.new("RGB", (width, height), _GROUND)
        self._drawing = threading.Lock()

    def add(self, tile: Tile, levels: Levels) -> None:
        """Draws a tile where it lies; what lies beyond the result's edge is cut off.

        Args:
            tile: Its place on the canvas, px.
            levels: (height, width, 3).
        """
        top, left = round(tile.top * self._factor), round(tile.left * self._factor)
        bottom, right = round(tile.bottom * self._factor), round(tile.right * self._factor)
        if bottom <= top or right <= left:
            return
        step = max(1, int(1 / self._factor))
        small = Image.fromarray((levels >> 8).astype(np.uint8)).reduce(step)
        small = small.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
        with self._drawing:
            self._canvas.paste(small, (left, top))

    def jpeg(self) -> bytes:
        """The picture as it stands."""
        target = io.BytesIO()
        with self._drawing:
            self._canvas.save(target, "JPEG", quality=_QUALITY)
        return target.getvalue()
