"""The words among which a caller may choose: formats, colours, priorities. Part of `contracts`.

It refuses to know what is done for each of them: a new word is refused until somebody knows it.
"""

from __future__ import annotations

from enum import StrEnum


class OutputFormat(StrEnum):
    """The file formats that a result can be encoded in."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    AVIF = "avif"
    TIFF = "tiff"
    JXL = "jxl"

    @property
    def media_type(self) -> str:
        """The IANA media type, such as `image/png`."""
        return f"image/{self.value}"


class ColorProfile(StrEnum):
    """The colours that a result is stored in: as its source's, or as sRGB."""

    SOURCE = "source"
    SRGB = "srgb"


class ColorFix(StrEnum):
    """How a result's colours are brought back to its source's before back-projection."""

    NONE = "none"
    WAVELET = "wavelet"


class Priority(StrEnum):
    """How a request shares the denoisers: somebody waits for it, or it may take its time."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
