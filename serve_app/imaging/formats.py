"""What each written file format holds: sides, pixels, depths, transparency, gray, profiles.

A format that cannot hold a result refuses it before anything is written, and says which can. This module
refuses to know how files are laid out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from serve_app.contracts import OutputFormat
from serve_app.errors import InvalidParameter
from serve_app.imaging.writers.jpeg import JpegWriter
from serve_app.imaging.writers.png import PngWriter
from serve_app.imaging.writers.sheet import Sheet, Writer
from serve_app.imaging.writers.tiff import TiffWriter
from serve_app.imaging.writers.whole import AvifWriter, JxlWriter, WebpWriter


@dataclass(frozen=True, slots=True)
class Format:
    """What a file format holds."""

    writer: Callable[[BinaryIO, Sheet], Writer]
    longest_side_px: int
    most_pixels: int | None = None
    bit_depths: tuple[int, ...] = (8,)
    alpha: bool = True
    gray: bool = True
    gray_with_alpha: bool = True
    profiles: bool = True
    most_moving_pixels: int = 0


# Where the encoder holds the whole picture, its pixels are what 1.5 GB hold: 8 bytes each for WebP, 37 for AVIF
# and 12 for JPEG XL, as measured (docs/decisions/0014-encoders.md); of a frame of many 26 for WebP and 83 for
# AVIF, which looks ahead (docs/decisions/0018-moving-pictures.md).
FORMATS = {
    OutputFormat.PNG: Format(PngWriter, 2**31 - 1, bit_depths=(8, 16), most_moving_pixels=2**62),
    OutputFormat.TIFF: Format(TiffWriter, 2**31 - 1, bit_depths=(8, 16)),
    OutputFormat.JPEG: Format(JpegWriter, 65500, alpha=False),
    OutputFormat.WEBP: Format(
        WebpWriter,
        16383,
        180_000_000,
        gray=False,
        gray_with_alpha=False,
        most_moving_pixels=55_000_000,
    ),
    # libavif reads no longer side unless told to, and neither do most that build on it
    OutputFormat.AVIF: Format(AvifWriter, 32768, 40_000_000, most_moving_pixels=18_000_000),
    OutputFormat.JXL: Format(JxlWriter, 2**30, 120_000_000, profiles=False),
}


def check_size(output_format: OutputFormat, height: int, width: int) -> None:
    """Judges a result's size, px.

    Raises:
        InvalidParameter: the format does not hold it; `output_format` is the field.
    """
    if _fits(FORMATS[output_format], height, width):
        return
    holds = FORMATS[output_format]
    most = f" and {holds.most_pixels} pixels" if holds.most_pixels else ""
    others = [other for other, its in FORMATS.items() if _fits(its, height, width)]
    raise InvalidParameter(
        f"output_format: {output_format} holds at most {holds.longest_side_px} px a side{most}, "
        f"not {width}x{height}",
        field="output_format",
        allowed="one of " + ", ".join(others),
    )


def _fits(holds: Format, height: int, width: int) -> bool:
    in_all = holds.most_pixels is None or height * width <= holds.most_pixels
    return in_all and max(height, width) <= holds.longest_side_px


def check_moves(output_format: OutputFormat, height: int, width: int) -> None:
    """Judges whether a format holds more than one frame of a size, px.

    Raises:
        InvalidParameter: it does not; `animated` is the field.
    """
    if height * width <= FORMATS[output_format].most_moving_pixels:
        return
    moving = ", ".join(
        other for other, its in FORMATS.items() if height * width <= its.most_moving_pixels
    )
    raise InvalidParameter(
        f"animated: {output_format} does not hold several frames of {width}x{height} px;"
        f" those that do are {moving}",
        field="animated",
        allowed=f"output_format of {moving}",
    )


def stored_bits(output_format: OutputFormat, asked: int | None, found: int) -> int:
    """The bits of a sample in the file.

    Args:
        output_format: The file format.
        asked: 8 or 16; None leaves it to the source.
        found: The source's, 8 or 16.

    Raises:
        InvalidParameter: the format does not hold what was asked for; `bit_depth` is the field.
    """
    held = FORMATS[output_format].bit_depths
    if asked is None:
        return found if found in held else 8
    if asked not in held:
        deep = [other for other, holds in FORMATS.items() if asked in holds.bit_depths]
        raise InvalidParameter(
            f"bit_depth: {output_format} is written with 8 bits; "
            f"{asked} are for {' and '.join(deep)}",
            field="bit_depth",
            allowed="8",
        )
    return asked
