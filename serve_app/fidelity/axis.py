"""A linear filter along one axis of a picture, made from what it does: a few diagonals of a matrix.

What an enlargement followed by a shrinking does to a line, and what a low-pass does to it, differs from
place to place (edges, odd scales) but reaches only a few pixels. So it is a band matrix, found by feeding it
combs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from serve_app.levels import Pixels

_BLOCK_ROWS = 16


class AxisFilter:
    """A line of `length` values to another, each from its `reach` neighbours on both sides.

    Args:
        respond: The filter on many lines at once: (length, n) to (length, n), linear.
        length: Of the line, 1 or more.
        reach: How far it looks, at most; what lies farther would be folded in.

    Attributes:
        reach: The same.
    """

    def __init__(self, respond: Callable[[Pixels], Pixels], length: int, reach: int) -> None:
        self.reach = reach
        self._length = length
        period = 2 * reach + 1
        places = np.arange(length)
        combs = np.zeros((length, period), np.float32)
        combs[places, places % period] = 1
        answers = respond(combs)
        blocks = -(-length // _BLOCK_ROWS)
        self._bands = np.zeros((blocks, _BLOCK_ROWS, _BLOCK_ROWS + 2 * reach), np.float32)
        for offset in range(-reach, reach + 1):
            rows = places[max(-offset, 0) : length - max(offset, 0)]
            block, row = rows // _BLOCK_ROWS, rows % _BLOCK_ROWS
            self._bands[block, row, row + offset + reach] = answers[rows, (rows + offset) % period]

    def rows(self, lines: Pixels, first: int, top: int, bottom: int) -> Pixels:
        """Filters down the columns.

        Args:
            lines: (n, ...) float32, the rows from `first` on: `reach` more than what is asked for above and
                below, or up to the picture's edge.
            first: The first of them.
            top: The first row asked for.
            bottom: The row after the last one asked for.

        Returns:
            (bottom - top, ...).
        """
        flat = np.ascontiguousarray(lines).reshape(len(lines), -1)
        found = np.empty((bottom - top, flat.shape[1]), np.float32)
        for block in range(top // _BLOCK_ROWS, -(-bottom // _BLOCK_ROWS)):
            start = block * _BLOCK_ROWS
            low, high = max(start, top), min(start + _BLOCK_ROWS, bottom)
            left, right = max(low - self.reach, 0), min(high + self.reach, self._length)
            origin = start - self.reach  # the input row of the band's first column
            band = self._bands[block, low - start : high - start, left - origin : right - origin]
            np.matmul(band, flat[left - first : right - first], out=found[low - top : high - top])
        return found.reshape(bottom - top, *lines.shape[1:])

    def columns(self, lines: Pixels) -> Pixels:
        """Filters along the rows of (n, length, ...)."""
        turned = self.rows(lines.swapaxes(0, 1), 0, 0, self._length)
        return np.ascontiguousarray(turned.swapaxes(0, 1))
