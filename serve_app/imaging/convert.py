"""From sRGB to a profile, by libvips' lcms with 16 bits a sample. It runs in the process of `worker`.

lcms is foreign code that a stranger's profile drives. This module refuses to know files, and which profiles
are asked for.
"""

from __future__ import annotations

import numpy as np
import pyvips

from serve_app.levels import Levels

pyvips.cache_set_max(0)  # a band never comes again, and the cache would keep it


def to_profile(colour: Levels, icc: bytes, channels: int) -> Levels:
    """Converts colours, with relative colorimetry.

    Args:
        colour: (height, width, 3) sRGB.
        icc: The profile.
        channels: How many it has to have.

    Returns:
        (height, width, channels) in the profile.

    Raises:
        ValueError: the profile cannot be written to, or has other channels.
    """
    height, width = colour.shape[:2]
    try:
        rows = pyvips.Image.new_from_memory(
            np.ascontiguousarray(colour).data, width, height, 3, "ushort"
        ).copy(interpretation="rgb16")
        between = rows.icc_import(input_profile="srgb", intent="relative", pcs="lab").copy()
        between.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
        written = between.icc_export(intent="relative", depth=16)
        samples = np.frombuffer(written.write_to_memory(), np.uint16)
    except (pyvips.Error, MemoryError) as error:
        raise ValueError(f"the profile cannot be written to ({error})") from None
    if written.bands != channels:
        raise ValueError(f"the profile has {written.bands} channels")
    return samples.reshape(height, width, channels)
