"""What a source's file says beside its pixels, kept for the file that the result is written to.

Small and plain, because it travels between processes with the decoded source. This module refuses to know
how any of it is read or written: `codec` fills it in, `encode` acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traits:
    """A source's traits.

    Attributes:
        gray: True where the file has one channel of colour.
        bit_depth: 8 or 16: the bits that its samples need.
        icc: The RGB or gray profile to write the result back in; None means sRGB, as for inks.
        exif: The TIFF block without its `Exif` prefix, as found; None if there is none.
        xmp: The XMP packet, as found; None if there is none.
    """

    gray: bool = False
    bit_depth: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
