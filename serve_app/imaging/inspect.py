"""Judges an upload from its header: whether we read it and whether it is within the limits.

It runs before anything is decoded or allocated, because a file of a hundred bytes can claim to hold
gigabytes. It refuses to know pixels: a picture that passes here may still turn out to be broken.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.errors import BrokenImage, InvalidParameter, TooLarge, UnsupportedImage
from serve_app.imaging.boxes import read_boxes
from serve_app.imaging.containers import (
    Facts,
    NotRead,
    SourceFormat,
    read_bmp,
    read_gif,
    read_jpeg,
    read_png,
    read_webp,
    recognise,
)
from serve_app.imaging.directories import read_tiff
from serve_app.imaging.spaces import Space
from serve_app.settings import ImageLimits

ALLOWED_FORMATS = "PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP or GIF"
FIELD = "image"

READERS: dict[SourceFormat, Callable[[bytes], Facts]] = {
    SourceFormat.PNG: read_png,
    SourceFormat.JPEG: read_jpeg,
    SourceFormat.WEBP: read_webp,
    SourceFormat.AVIF: read_boxes,
    SourceFormat.HEIC: read_boxes,
    SourceFormat.TIFF: read_tiff,
    SourceFormat.BMP: read_bmp,
    SourceFormat.GIF: read_gif,
}

_REFUSED = {  # what people do send, so that the answer can name it; (first byte's place, bytes)
    "a JPEG XL": (0, b"\0\0\0\x0cJXL "),
    "a JPEG XL codestream": (0, b"\xff\x0a"),
    "a JPEG 2000": (0, b"\0\0\0\x0cjP  "),
    "a PDF": (0, b"%PDF"),
    "a Photoshop document": (0, b"8BPS"),
    "an SVG or XML text": (0, b"<"),
    "a video or another picture of its family": (4, b"ftyp"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header says.

    Attributes:
        format: The file format, by its first bytes.
        height: Rows as the picture is seen, px: after `orientation`.
        width: Columns as the picture is seen, px.
        has_alpha: Whether it declares transparency; what it declares may still be all opaque.
        orientation: EXIF's 1 to 8: how the stored rows are to be turned.
        bit_depth: Bits of one stored sample.
        weighed: Whether the decoder hands colour over premultiplied by alpha.
        space: What it names by numbers, which counts more than a profile in it; None where it names none.
        gray: Whether an AVIF or HEIC has one channel of colour.
        window: Left, top, width and height, px, of what is seen of the stored picture, where that is not left
            to its decoder; it is then handed over whole and as stored.
    """

    format: SourceFormat
    height: int
    width: int
    has_alpha: bool
    orientation: int
    bit_depth: int
    weighed: bool = False
    space: Space | None = None
    gray: bool = False
    window: tuple[int, int, int, int] | None = None


def inspect(data: bytes, limits: ImageLimits, field: str = FIELD) -> Header:
    """Reads and judges a file's header.

    Args:
        data: The whole file.
        limits: What an upload may weigh.
        field: Its name in what errors say.

    Raises:
        InvalidParameter: no data at all.
        UnsupportedImage: not of `ALLOWED_FORMATS`, or of a kind of it that is not read.
        TooLarge: over `limits.upload_bytes` or `limits.source_pixels`.
        BrokenImage: the header ends early or makes no sense.
    """
    if not data:
        raise InvalidParameter(f"{field}: it is empty", field=field, allowed=ALLOWED_FORMATS)
    if len(data) > limits.upload_bytes:
        raise TooLarge(
            f"{field}: {len(data)} bytes are more than the limit of {limits.upload_bytes}",
            field=field,
            allowed=f"at most {limits.upload_bytes} bytes",
        )
    found = recognise(data)
    if found is None:
        raise UnsupportedImage(
            f"{field}: this is {_guess(data)}; allowed: {ALLOWED_FORMATS}",
            field=field,
            allowed=ALLOWED_FORMATS,
        )
    facts = _read(found, data, field)
    header = _header(found, facts)
    pixels, what = header.height * header.width, f"{header.width}x{header.height} is"
    if facts.claimed_pixels > pixels:
        pixels, what = facts.claimed_pixels, "a part of it claims"
    if pixels > limits.source_pixels:
        raise TooLarge(
            f"{field}: {what} {pixels} pixels, more than the limit of {limits.source_pixels}",
            field=field,
            allowed=f"at most {limits.source_pixels} pixels",
        )
    return header


def broken(reason: object, found: SourceFormat, field: str) -> BrokenImage:
    """The error for a file that does not decode; `reason` is the decoder's own words."""
    return BrokenImage(
        f"{field}: this {found.upper()} file does not decode: {reason}",
        field=field,
        allowed=f"a whole {ALLOWED_FORMATS} file",
    )


def _read(found: SourceFormat, data: bytes, field: str) -> Facts:
    try:
        facts = READERS[found](data)
    except NotRead as error:
        raise UnsupportedImage(
            f"{field}: {error} is not read", field=field, allowed=ALLOWED_FORMATS
        ) from None
    except (struct.error, IndexError):
        raise broken("its header ends too early", found, field) from None
    except ValueError as error:
        raise broken(error, found, field) from None
    if not facts.height or not facts.width:
        raise broken(f"it claims to be {facts.width}x{facts.height} px", found, field)
    return facts


def _header(found: SourceFormat, facts: Facts) -> Header:
    height, width = facts.height, facts.width
    if facts.orientation >= 5:  # 5 to 8 lay the picture on its side
        height, width = width, height
    return Header(
        found,
        height,
        width,
        facts.has_alpha,
        facts.orientation,
        facts.bit_depth,
        facts.weighed,
        facts.space,
        facts.gray,
        facts.window,
    )


def _guess(data: bytes) -> str:
    for name, (at, magic) in _REFUSED.items():
        if data.startswith(magic, at):
            return f"{name} file"
    return "no picture that is known here"
