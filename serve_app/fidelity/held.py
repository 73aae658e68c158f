"""The rows of a picture that comes from top to bottom, from the first that is still needed on.

Bands stay the arrays that they came as, so that holding and letting go copy nothing. This module refuses to
know what the rows are for.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from serve_app.levels import Pixels


class HeldRows:
    """Rows by their number in the picture.

    Attributes:
        end: The row after the last one that has come.
    """

    def __init__(self) -> None:
        self.end = 0
        self._bands: deque[tuple[int, Pixels]] = deque()

    def add(self, band: Pixels) -> None:
        """Takes the next rows, (n, width) or (n, width, channels); they must not be changed any more."""
        self._bands.append((self.end, band))
        self.end += len(band)

    def rows(self, top: int, bottom: int) -> Pixels:
        """Some of those that are held, top < bottom; a view where they came as one.

        Raises:
            ValueError: if one is not held.
        """
        parts = [
            band[max(top - first, 0) : bottom - first]
            for first, band in self._bands
            if first < bottom and top < first + len(band)
        ]
        if sum(map(len, parts)) != bottom - top:
            raise ValueError(f"rows {top} to {bottom} are not held")
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def drop(self, before: int) -> None:
        """Lets go of bands that lie wholly above a row."""
        while self._bands and self._bands[0][0] + len(self._bands[0][1]) <= before:
            self._bands.popleft()
