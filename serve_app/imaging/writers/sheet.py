"""What every writer is told before the first row, and the one thing that several need: rows in even portions.

This module refuses to know any file format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]  # uint8 or uint16


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file to be written.

    Attributes:
        height: Rows, px.
        width: Columns, px.
        channels: 1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha; alpha is straight.
        bits: Of a sample, 8 or 16.
        quality: 1 to 100, for formats that lose something.
        icc: The profile that the samples are in; None is sRGB.
        exif: A block from its byte order mark on.
        xmp: A packet.
        record: The provenance as JSON, for formats with texts of their own; empty without one.
        software: Who writes the file.
    """

    height: int
    width: int
    channels: int
    bits: int
    quality: int
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    record: str
    software: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of samples."""
        return self.width * self.channels * self.bits // 8


class Writer(Protocol):
    """Takes all rows from top to bottom, in portions of any height, then is ended."""

    def rows(self, samples: Samples) -> None:
        """Takes (n, width, channels) uint8 or uint16 samples."""
        ...

    def end(self) -> None:
        """Writes what is left; the file is whole."""
        ...


class Portions:
    """Cuts rows that come in any heights into portions of one height; the last may be lower.

    Args:
        rows: Rows of a portion.
        total: Rows of the picture.
        take: Is given each portion.
    """

    def __init__(self, rows: int, total: int, take: Callable[[Samples], None]) -> None:
        self._rows, self._left, self._take = rows, total, take
        self._waiting: list[Samples] = []
        self._height = 0

    def add(self, samples: Samples) -> None:
        """Takes rows; gives on each portion that is full."""
        while len(samples):
            wanted = min(self._rows, self._left) - self._height
            part, samples = samples[:wanted], samples[wanted:]
            self._waiting.append(part)
            self._height += len(part)
            if len(part) == wanted:
                whole = (
                    self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
                )
                self._left -= self._height
                self._waiting, self._height = [], 0
                self._take(whole)
