"""PNG as the rows come: each row as its difference to what Paeth's filter expects, then zlib, nothing kept.

Pillow and OpenCV want the whole picture first. libvips can stream, but not from rows that are pushed, and has
no way to the one setting that is small and fast here (docs/decisions/0014-encoders.md).

Source: the PNG specification, third edition, chapters 5, 9 and 11.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from serve_app.imaging.provenance import PNG_KEYWORD
from serve_app.imaging.writers.sheet import Samples, Sheet

_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
_PAETH = 4
_RELATIVE = 1  # rendering intent
_CHUNK_BYTES = (
    256 * 1024
)  # of pixels; a reader must hold one at a time, and many small ones cost it time


class PngWriter:
    """Writes a PNG of 8 or 16 bits, gray or colour, with or without alpha."""

    def __init__(self, file: BinaryIO, sheet: Sheet) -> None:
        self._file = file
        self._step = sheet.channels * sheet.bits // 8
        self._big_endian = np.dtype(np.uint8 if sheet.bits == 8 else ">u2")
        self._above = np.zeros(sheet.row_bytes, np.uint8)
        # Filtered photographs hold runs but hardly a longer repetition.
        self._zip = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
        self._packed = bytearray()
        kind = _COLOUR_TYPE[sheet.channels]
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(
            b"IHDR", struct.pack(">IIBBBBB", sheet.width, sheet.height, sheet.bits, kind, 0, 0, 0)
        )
        self._write_about(sheet)

    def rows(self, samples: Samples) -> None:
        """Takes (n, width, channels) samples."""
        stored = np.ascontiguousarray(samples.astype(self._big_endian, copy=False))
        lines = stored.view(np.uint8).reshape(len(stored), -1)
        self._packed += self._zip.compress(_filtered(lines, self._above, self._step).data)
        self._above = lines[-1].copy()
        if len(self._packed) >= _CHUNK_BYTES:
            self._flush()

    def end(self) -> None:
        """Writes what is left."""
        self._packed += self._zip.flush()
        self._flush()
        self._chunk(b"IEND", b"")

    def _write_about(self, sheet: Sheet) -> None:
        if sheet.icc is None:
            self._chunk(b"sRGB", bytes([_RELATIVE]))
        else:
            self._chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(sheet.icc))
        if sheet.exif is not None:
            self._chunk(b"eXIf", sheet.exif)
        if sheet.xmp is not None:
            self._chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + sheet.xmp)
        if sheet.record:
            self._chunk(b"iTXt", PNG_KEYWORD.encode() + b"\0\0\0\0\0" + sheet.record.encode())
        self._chunk(b"tEXt", b"Software\0" + sheet.software.encode("latin-1", "replace"))

    def _flush(self) -> None:
        if self._packed:
            self._chunk(b"IDAT", bytes(self._packed))
            self._packed.clear()

    def _chunk(self, kind: bytes, body: bytes) -> None:
        self._file.write(struct.pack(">I", len(body)) + kind)
        self._file.write(body)
        self._file.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))


def _filtered(lines: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Each row of bytes, behind its filter's number, as differences to what its neighbours make expect."""
    height, width = lines.shape
    both = np.zeros((height + 1, width + step), np.uint8)
    both[0, step:], both[1:, step:] = above, lines
    left, up, corner = both[1:, :width], both[:-1, step:], both[:-1, :width]
    rise = np.subtract(
        left, corner, dtype=np.int16
    )  # what `up` is off by: up - (left + up - corner)
    run = np.subtract(up, corner, dtype=np.int16)
    to_left, to_up, to_corner = np.abs(run), np.abs(rise), np.abs(rise + run)
    nearest = np.where(to_up <= to_corner, up, corner)
    expected = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest)
    stored = np.empty((height, width + 1), np.uint8)
    stored[:, 0] = _PAETH
    np.subtract(lines, expected, out=stored[:, 1:])
    return stored
