"""How many frames a file shows, by its bytes: GIF, PNG, WebP and AVIF can move, other files have one.

No decoder runs here, so that a hundred bytes of claims are judged before anything is allocated for them. The
pages of a TIFF and the pictures beside an AVIF's or HEIC's primary one are no frames. This module refuses to
know pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from serve_app.errors import TooLarge
from serve_app.imaging.boxes import count_samples
from serve_app.imaging.containers import SourceFormat
from serve_app.imaging.gif import read_gif_blocks
from serve_app.imaging.inspect import FIELD, Header, broken
from serve_app.settings import ImageLimits

_MOST_PARTS = 50_000  # chunks of a file; a bound on time, for us and for the decoder after us
_TOO_MANY_PARTS = "it is in too many parts"
_WEBP_MOVES = 0x02


def count_frames(data: bytes, header: Header, limits: ImageLimits, field: str = FIELD) -> int:
    """Counts a file's frames and judges what they weigh together. Decodes nothing.

    Args:
        data: The whole file.
        header: What `inspect` says of it.
        limits: On the frames, and on the pixels of all of them.
        field: The file's name in what errors say.

    Returns:
        0 or 1 for a still picture.

    Raises:
        TooLarge: more than `limits.frames`, or more pixels in all than `limits.source_pixels`.
        BrokenImage: the file ends within a frame or makes no sense.
    """
    count = _COUNTERS.get(header.format, _one)
    try:
        frames = count(data)
    except (struct.error, IndexError):
        raise broken("it ends within a frame", header.format, field) from None
    except ValueError as error:
        raise broken(error, header.format, field) from None
    if frames > limits.frames:
        raise TooLarge(
            f"{field}: {frames} frames are more than the limit of {limits.frames}",
            field=field,
            allowed=f"at most {limits.frames} frames",
        )
    pixels = frames * header.height * header.width
    if frames > 1 and pixels > limits.source_pixels:
        raise TooLarge(
            f"{field}: {frames} frames of {header.width}x{header.height} are {pixels} pixels, more than"
            f" the limit of {limits.source_pixels}",
            field=field,
            allowed=f"at most {limits.source_pixels} pixels in all frames together",
        )
    return frames


def _one(_: bytes) -> int:
    return 1


def _count_gif(data: bytes) -> int:
    return len(read_gif_blocks(data).shots)


def _count_png(data: bytes) -> int:
    """Counts frame controls; 1 without acTL. Source: the PNG specification, third edition, 11.3.6."""
    claimed, frames, at = None, 0, 8
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL":
            (claimed,) = struct.unpack_from(">I", data, at + 8)
        elif kind == b"fcTL":
            frames += 1
        if kind == b"IEND" or (kind == b"IDAT" and claimed is None):
            break
        at += length + 12
    else:
        raise ValueError(_TOO_MANY_PARTS)
    if claimed is None:
        return 1
    if claimed != frames:
        raise ValueError(f"it claims {claimed} frames and has {frames}")
    return frames


def _count_webp(data: bytes) -> int:
    """Counts ANMF chunks. Source: RFC 9649, section 2.7.1."""
    if data[12:16] != b"VP8X" or not data[20] & _WEBP_MOVES:
        return 1
    frames, at = 0, 12
    for _ in range(_MOST_PARTS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF":
            frames += 1
            if at + 8 + length > len(data):
                raise IndexError
        at += 8 + length + length % 2
    else:
        raise ValueError(_TOO_MANY_PARTS)
    return frames


_COUNTERS: dict[SourceFormat, Callable[[bytes], int]] = {
    SourceFormat.GIF: _count_gif,
    SourceFormat.PNG: _count_png,
    SourceFormat.WEBP: _count_webp,
    SourceFormat.AVIF: count_samples,
}
