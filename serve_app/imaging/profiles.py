"""From sRGB, in which everything is computed, to the profile of a result's file.

A profile comes from a stranger's file. So it is judged here, and followed in the process of `worker`, some rows
at a time; a malicious one costs that process and its own result, never the service. One that cannot be written
to is not an error: its result stays sRGB. This module refuses to know the library that follows profiles, and
file formats.
"""

from __future__ import annotations

import struct
from itertools import product

import numpy as np

from serve_app.errors import InvalidParameter
from serve_app.imaging.worker import convert_contained
from serve_app.levels import Levels
from serve_app.settings import ImageLimits

MOST_PROFILE_BYTES = 4 * 2**20  # the largest in common use, tables for a scanner, have 3 MB
_MOST_TAGS = 100
_HEADER_BYTES, _TAG_BYTES = 128, 12
_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
_CONNECTED_BY = (b"XYZ ", b"Lab ")
_SAME = 257  # levels; one step of 8 bits: such a profile is sRGB by another name
_AT_ONCE_PIXELS = 2**20  # go to the other process together: 6 MB, however wide a row


class Conversion:
    """Converts rows from sRGB to a profile. It is tried on all corners of sRGB first.

    Args:
        icc: The profile: of one channel for gray rows, of three for others.
        gray: Whether the file keeps one channel of colour.
        limits: What converting a band may take in memory and time.

    Raises:
        ValueError: the profile is of another kind, or no profile.
        InvalidParameter: it cannot be written to: it is refused, takes too long, or the converter dies of it.
        Busy: no converter came free.
    """

    def __init__(self, icc: bytes, *, gray: bool, limits: ImageLimits) -> None:
        _judge(icc, b"GRAY" if gray else b"RGB ")
        self._icc, self._limits = icc, limits
        self._channels = 1 if gray else 3
        steps = np.linspace(0, 65535, 9).astype(np.uint16)
        corners = [(v, v, v) for v in steps] if gray else list(product(steps, repeat=3))
        probe = np.array([corners], np.uint16)
        difference = self._through(probe).astype(int) - probe[:, :, : self._channels]
        self._same = bool(np.abs(difference).max() <= _SAME)

    def __call__(self, colour: Levels) -> Levels:
        """Converts (n, width, 3) sRGB to (n, width, 3 or 1) in the profile.

        Raises:
            InvalidParameter: after all it cannot be written to. The rows before are in the profile already, so
                these cannot be sRGB: there is no result then.
            Busy: no converter came free.
        """
        if self._same:
            return colour[:, :, : self._channels]
        try:
            return self._through(colour)
        except (
            InvalidParameter
        ):  # it went well before: what ended the converter may be another's doing
            return self._through(colour)

    def _through(self, colour: Levels) -> Levels:
        pixels = colour.reshape(-1, 3)
        pieces = [
            convert_contained(
                pixels[first : first + _AT_ONCE_PIXELS], self._icc, self._channels, self._limits
            )
            for first in range(0, len(pixels), _AT_ONCE_PIXELS)
        ]
        found = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return found.reshape(*colour.shape[:2], self._channels)


def _judge(icc: bytes, space: bytes) -> None:
    """Refuses what is not plainly a profile of a kind of space, before a library in C sees any of it.

    Source: ICC.1:2022, section 7.

    Raises:
        ValueError: saying why not.
    """
    if len(icc) > MOST_PROFILE_BYTES:
        raise ValueError("the profile is too large")
    if len(icc) < _HEADER_BYTES + 4 or icc[36:40] != b"acsp":
        raise ValueError("no profile")
    size, *_ = struct.unpack_from(">I", icc)
    (tags,) = struct.unpack_from(">I", icc, _HEADER_BYTES)
    table_end = _HEADER_BYTES + 4 + _TAG_BYTES * tags
    if not table_end <= size <= len(icc) or not 0 < tags <= _MOST_TAGS:
        raise ValueError("the profile states sizes that it does not have")
    if icc[12:16] not in _CLASSES or icc[16:20] != space or icc[20:24] not in _CONNECTED_BY:
        raise ValueError("the profile is of another kind")
    seen = set()
    for place in range(_HEADER_BYTES + 4, table_end, _TAG_BYTES):
        name, start, length = struct.unpack_from(">4sII", icc, place)
        if name in seen or start < table_end or length < 8 or start + length > size:
            raise ValueError("the profile's tags lie outside of it")
        seen.add(name)
