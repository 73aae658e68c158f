"""From sRGB, in which everything is computed, to the profile of a result's file.

libvips' lcms does it with 16 bits a sample, a band of rows at a time. A profile comes from a stranger's file:
one that cannot be written to is not an error, its result stays sRGB. This module refuses to know file
formats.
"""

from __future__ import annotations

import struct
from itertools import product

import numpy as np
import pyvips

from serve_app.levels import Levels

pyvips.cache_set_max(0)  # a band never comes again, and the cache would keep it

MOST_PROFILE_BYTES = 4 * 2**20  # the largest in common use, tables for a scanner, have 3 MB
_MOST_TAGS = 100
_HEADER_BYTES, _TAG_BYTES = 128, 12
_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
_CONNECTED_BY = (b"XYZ ", b"Lab ")
_SAME = 257  # levels; one step of 8 bits: such a profile is sRGB by another name


class Conversion:
    """Converts rows from sRGB to a profile.

    Args:
        icc: The profile: of one channel for gray rows, of three for others.
        gray: Whether the file keeps one channel of colour.

    Raises:
        ValueError: the profile cannot be written to, or is of another kind.
    """

    def __init__(self, icc: bytes, *, gray: bool) -> None:
        _judge(icc, b"GRAY" if gray else b"RGB ")
        self._icc = icc
        self._channels = 1 if gray else 3
        steps = np.linspace(0, 65535, 9).astype(np.uint16)
        corners = [(v, v, v) for v in steps] if gray else list(product(steps, repeat=3))
        probe = np.array([corners], np.uint16)
        difference = self._through(probe).astype(int) - probe[:, :, : self._channels]
        self._same = bool(np.abs(difference).max() <= _SAME)

    def __call__(self, colour: Levels) -> Levels:
        """Converts (n, width, 3) sRGB to (n, width, 3 or 1) in the profile."""
        if self._same:
            return colour[:, :, : self._channels]
        return self._through(colour)

    def _through(self, colour: Levels) -> Levels:
        height, width = colour.shape[:2]
        try:
            rows = pyvips.Image.new_from_memory(
                np.ascontiguousarray(colour).data, width, height, 3, "ushort"
            ).copy(interpretation="rgb16")
            between = rows.icc_import(input_profile="srgb", intent="relative", pcs="lab").copy()
            between.set_type(pyvips.GValue.blob_type, "icc-profile-data", self._icc)
            written = between.icc_export(intent="relative", depth=16)
            samples = np.frombuffer(written.write_to_memory(), np.uint16)
        except pyvips.Error as error:
            raise ValueError(f"the profile cannot be written to ({error})") from None
        if written.bands != self._channels:
            raise ValueError(f"the profile has {written.bands} channels")
        return samples.reshape(height, width, written.bands)


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
