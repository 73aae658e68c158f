"""Colour of a file to sRGB, at full precision. It refuses to know containers, and alpha.

A profile is followed with relative colorimetry and black point compensation: colours that sRGB holds stay
themselves, so that a result can be written back in its source's profile. The perceptual intent would bend them
all, each profile in its own way; matrix profiles, which most pictures have, do not know it. A profile that
cannot be used counts as none. Without one, colours are sRGB, and inks are (1 - ink)(1 - black), which needs no
guess at a paper.
"""

from __future__ import annotations

import numpy as np
import pyvips
from numpy.typing import NDArray

_PROFILE = "icc-profile-data"
_PROBE_STEPS = 9
_SAME_LEVELS = 257  # one step of 8 bits: how far what calls itself sRGB lies from libvips' own


def to_srgb(image: pyvips.Image) -> tuple[pyvips.Image, bytes | None]:
    """Converts a picture without alpha to sRGB levels.

    Args:
        image: 1, 3 or 4 (inks) bands of uchar or ushort, its profile attached.

    Returns:
        1 or 3 bands of sRGB, ushort where colours were converted; and its profile if the result can be
        written back in it: None for sRGB itself and for inks.
    """
    profile = image.get(_PROFILE) if _PROFILE in image.get_fields() else None
    if profile is not None and _usable(profile, image.bands):
        if _changes_nothing(profile, image.bands):
            return image, None
        converted = _convert(_meant(image, image.bands))
        return converted, profile if image.bands < 4 else None
    if image.bands == 4:
        return _from_inks(image), None
    return image, None


def to_levels(image: pyvips.Image) -> pyvips.Image:
    """8-bit samples as levels; 16-bit ones stay what they are."""
    return image if image.format == "ushort" else (image.cast("ushort") * 257).cast("ushort")


def _convert(image: pyvips.Image) -> pyvips.Image:
    return image.icc_transform(
        "srgb", embedded=True, intent="relative", black_point_compensation=True, depth=16
    )


def _meant(image: pyvips.Image, bands: int) -> pyvips.Image:
    deep = image.format == "ushort"
    kind = {1: ("b-w", "grey16"), 3: ("srgb", "rgb16"), 4: ("cmyk", "cmyk")}[bands][deep]
    return image.copy(interpretation=kind)


def _usable(profile: bytes, bands: int) -> bool:
    """Whether it is a profile for as many bands that converts a pixel at all."""
    try:
        _convert(_attach(np.zeros((1, 1, bands), np.uint16), profile)).avg()
    except pyvips.Error:
        return False
    return profile[16:20] == {1: b"GRAY", 3: b"RGB ", 4: b"CMYK"}[bands]


def _changes_nothing(profile: bytes, bands: int) -> bool:
    """Whether it is sRGB by what it does; the names of such profiles are many."""
    steps = np.linspace(0, 65535, _PROBE_STEPS).astype(np.uint16)
    if bands == 4:
        return False
    probe = np.stack(np.meshgrid(*[steps] * bands), axis=-1).reshape(1, -1, bands)
    seen = _convert(_attach(probe, profile)).numpy()
    seen = seen.reshape(1, probe.shape[1], -1)
    return bool(np.abs(seen.astype(int) - probe.astype(int)).max() <= _SAME_LEVELS)


def _attach(samples: NDArray[np.uint16], profile: bytes) -> pyvips.Image:
    image = _meant(pyvips.Image.new_from_array(np.ascontiguousarray(samples)), samples.shape[2])
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, _PROFILE, profile)
    return image


def _from_inks(image: pyvips.Image) -> pyvips.Image:
    top = 65535 if image.format == "ushort" else 255
    light = (top - image).cast("float")
    paper = light.extract_band(0, n=3) * light.extract_band(3) * (65535 / top**2)
    return (paper + 0.5).cast("ushort")
