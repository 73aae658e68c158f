"""Hand-made files: what no encoder at hand would write, and the bytes that tests cut and bend."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def ihdr(width: int, height: int, depth: int = 8, colour_type: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))


def png(
    width: int,
    depth: int,
    colour_type: int,
    rows: list[bytes],
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG of packed rows; `before` and `after` are chunks on either side of the pixels."""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = ihdr(width, len(rows), depth, colour_type)
    body = header + before + chunk(b"IDAT", pixels) + after + chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + body


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF block with the orientation as its second entry."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(order + "HHIHH", 0x0100, 3, 1, 7, 0)
    entries += struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 2) + entries + struct.pack(order + "I", 0)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def smooth(height: int = 40, width: int = 60) -> Image.Image:
    """A smooth RGB picture that lossy formats keep within a few grey levels."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (60 + 2 * x, 40 + 3 * y, 100 + x + y)
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def noisy(height: int = 48, width: int = 64) -> Image.Image:
    samples = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(samples)


def levels(plane: np.ndarray) -> np.ndarray:
    """Levels back to 8 bits, to compare with what was written."""
    return (plane.astype(int) + 128) // 257
