"""From sRGB, in which everything is computed, to the profile of a result's file.

libvips' lcms does it with 16 bits a sample, a band of rows at a time. A profile comes from a stranger's file:
one that cannot be written to is not an error, its result stays sRGB. This module refuses to know file
formats.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pyvips

from serve_app.levels import Levels

pyvips.cache_set_max(0)  # a band never comes again, and the cache would keep it

MOST_PROFILE_BYTES = 4 * 2**20  # the largest in common use, tables for a scanner, have 3 MB
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
        if len(icc) > MOST_PROFILE_BYTES:
            raise ValueError("the profile is too large")
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
