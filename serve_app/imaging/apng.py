"""PNG that moves: its frames as files of their own, and files of frames joined to one.

libvips reads a PNG's default picture alone, and Pillow lays half transparent frames over each other with the
wrong transparency. But each frame is a PNG of its own but for its chunks' names, so libvips reads it, at its
full depth, and joining takes no encoder at all. This module refuses to know limits.

Source: the PNG specification, third edition, 5.4, 11.3.6 and 13.13.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import pyvips

from serve_app.imaging.shots import Disposal, Samples, Shot

_MAGIC = b"\x89PNG\r\n\x1a\n"
_CONTROL = struct.Struct(">IIIIIHHBB")
_KEEP, _OVER = 0, 1
_DISPOSALS = {1: Disposal.CLEAR, 2: Disposal.PREVIOUS}
_MOST_DELAY = 65535
_SHARED = (b"PLTE", b"tRNS")  # what a frame needs to be read alone


def take_apart(data: bytes) -> tuple[list[Shot], int]:
    """Reads the chunks of a file that `motion` has counted.

    Returns:
        Its frames, each a PNG of its own but for its chunks' names; and how often they play, 0 being for ever.

    Raises:
        struct.error: a chunk is too short.
        ValueError: a frame is empty.
    """
    ihdr, shared, plays = b"", b"", 0
    found: list[tuple[memoryview, list[memoryview]]] = []
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            ihdr = bytes(body)
        elif kind in _SHARED:
            shared += _chunk(kind, body)
        elif kind == b"acTL":
            (plays,) = struct.unpack_from(">I", body, 4)
        elif kind == b"fcTL":
            found.append((body, []))
        elif kind == b"IDAT" and found:  # before the first fcTL it is the default picture, no frame
            found[-1][1].append(body)
        elif kind == b"fdAT" and found:
            found[-1][1].append(body[4:])
    return [_shot(control, pixels, ihdr, shared) for control, pixels in found], plays


def read(data: bytes) -> Samples:
    """Decodes a frame's file, (height, width, channels), at its own depth."""
    image = pyvips.Image.pngload_buffer(data, access="sequential", fail_on="error")
    samples: Samples = image.numpy().reshape(image.height, image.width, image.bands)
    return samples


def join(file: BinaryIO, frames: Iterable[bytes], durations_ms: Sequence[int], plays: int) -> None:
    """Writes PNG files of one size and kind as the frames of one; what the first says of itself is kept.

    Args:
        file: Where to.
        frames: The files; one is held at a time.
        durations_ms: How long each is shown.
        plays: How often all is shown; 0 is for ever.

    Raises:
        ValueError: a frame is of another size or kind than the first.
    """
    file.write(_MAGIC)
    ihdr, number, ended = None, 0, b""
    for at, (data, duration_ms) in enumerate(zip(frames, durations_ms, strict=True)):
        begun = False
        for kind, body in _chunks(data):
            if kind == b"IHDR":
                ihdr = ihdr or bytes(body)
                if body != ihdr:
                    raise ValueError("a frame is of another size or kind than the first")
            if kind == b"IDAT" and not begun:
                begun = True
                if at == 0:
                    file.write(_chunk(b"acTL", struct.pack(">II", len(durations_ms), plays)))
                file.write(_chunk(b"fcTL", _control(number, ihdr or b"", duration_ms)))
                number += 1
            if kind == b"IDAT" and at > 0:
                file.write(_chunk(b"fdAT", struct.pack(">I", number) + body))
                number += 1
            elif kind == b"IEND" or (begun and kind != b"IDAT"):
                ended += _chunk(kind, body) if at == 0 else b""
            elif at == 0:
                file.write(_chunk(kind, body))
    file.write(ended)


def _control(number: int, ihdr: bytes, duration_ms: int) -> bytes:
    width, height = struct.unpack_from(">II", ihdr)
    unit = next(per for per in (1000, 100, 10, 1) if duration_ms * per // 1000 <= _MOST_DELAY)
    delay = round(duration_ms * unit / 1000)
    return _CONTROL.pack(number, width, height, 0, 0, delay, unit, _KEEP, 0)


def _shot(control: memoryview, pixels: list[memoryview], ihdr: bytes, shared: bytes) -> Shot:
    _, width, height, left, top, delay, per, disposal, blend = _CONTROL.unpack_from(control)
    if not width or not height or not pixels:
        raise ValueError("a frame is empty")

    def alone() -> bytes:
        head = struct.pack(">II", width, height) + ihdr[8:]
        parts = b"".join(_chunk(b"IDAT", part) for part in pixels)
        return _MAGIC + _chunk(b"IHDR", head) + shared + parts + _chunk(b"IEND")

    how = _DISPOSALS.get(disposal, Disposal.KEEP)
    duration_ms = round(1000 * delay / (per or 100))
    return Shot(height, width, top, left, duration_ms, how, blend == _OVER, alone)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    whole, at = memoryview(data), len(_MAGIC)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, whole[at + 8 : at + 8 + length]
        at += length + 12


def _chunk(kind: bytes, body: bytes | memoryview = b"") -> bytes:
    return (
        struct.pack(">I", len(body))
        + kind
        + bytes(body)
        + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
    )
