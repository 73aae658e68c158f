"""TIFF as the rows come: strips of differences through zlib, and behind them the directory that names them.

tifffile and libvips pull their rows, and neither writes a source's EXIF. What is written is baseline TIFF
with the deflate compression and the horizontal predictor that libtiff, and so nearly every reader, knows;
BigTIFF where the file may pass 4 GB.

Source: Adobe, TIFF revision 6.0, sections 2, 14 and 18; technical note 2 (deflate); the BigTIFF design of
libtiff.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np

from serve_app.imaging.ifd import (
    BYTE,
    LONG,
    LONG8,
    RATIONAL,
    SHORT,
    UNDEFINED,
    Directory,
    Value,
    numbers,
    read_block,
    text,
    write,
)
from serve_app.imaging.writers.sheet import Portions, Samples, Sheet

_STRIP_BYTES = 512 * 1024  # before compression: what a reader unpacks at once
_MOST_CLASSIC_BYTES = 4_000_000_000  # offsets have 32 bits; room is left for what does not compress
_UNKNOWN_DPI, _INCH = 72, 2  # a baseline TIFF must say one; this is EXIF's number for "unknown"
_DEFLATE, _HORIZONTAL, _MIN_IS_BLACK, _RGB, _STRAIGHT_ALPHA = 8, 2, 1, 2, 2


class TiffWriter:
    """Writes a TIFF of 8 or 16 bits, gray or colour, with or without alpha."""

    def __init__(self, file: BinaryIO, sheet: Sheet) -> None:
        self._file, self._sheet = file, sheet
        self._order, self._about = _about(sheet)
        self._big = sheet.row_bytes * sheet.height > _MOST_CLASSIC_BYTES
        self._stored = np.dtype(np.uint8 if sheet.bits == 8 else self._order + "u2")
        self._strip_rows = max(1, min(sheet.height, _STRIP_BYTES // sheet.row_bytes))
        self._portions = Portions(self._strip_rows, sheet.height, self._write_strip)
        self._places: list[int] = []
        self._lengths: list[int] = []
        mark = b"II" if self._order == "<" else b"MM"
        head = struct.pack(self._order + "HHHQ", 43, 8, 0, 0)
        file.write(mark + (head if self._big else struct.pack(self._order + "HL", 42, 0)))

    def rows(self, samples: Samples) -> None:
        """Takes (n, width, channels) samples."""
        self._portions.add(samples)

    def end(self) -> None:
        """Writes the directory, and at the file's beginning where it stands."""
        if self._file.tell() % 2:
            self._file.write(b"\0")
        at = self._file.tell()
        self._file.write(write(self._directory(), self._order, at, big=self._big))
        self._file.seek(8 if self._big else 4)
        self._file.write(struct.pack(self._order + ("Q" if self._big else "L"), at))

    def _write_strip(self, samples: Samples) -> None:
        differences = samples.copy()
        differences[:, 1:] -= samples[:, :-1]
        packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
        packed = packer.compress(differences.astype(self._stored, copy=False).tobytes())
        packed += packer.flush()
        self._places.append(self._file.tell())
        self._lengths.append(len(packed))
        self._file.write(packed)

    def _directory(self) -> Directory:
        sheet, order = self._sheet, self._order
        offset = LONG8 if self._big else LONG

        def short(*values: int) -> Value:
            return numbers(order, SHORT, *values)

        density = Value(RATIONAL, 1, struct.pack(order + "LL", _UNKNOWN_DPI, 1))
        tags: dict[int, Value | Directory] = {
            0x011A: density,
            0x011B: density,
            0x0128: short(_INCH),
        }
        tags |= self._about
        tags |= {
            0x0100: numbers(order, LONG, sheet.width),
            0x0101: numbers(order, LONG, sheet.height),
            0x0102: short(*[sheet.bits] * sheet.channels),
            0x0103: short(_DEFLATE),
            0x0106: short(_MIN_IS_BLACK if sheet.channels < 3 else _RGB),
            0x0111: numbers(order, offset, *self._places),
            0x0112: short(1),
            0x0115: short(sheet.channels),
            0x0116: numbers(order, LONG, self._strip_rows),
            0x0117: numbers(order, offset, *self._lengths),
            0x011C: short(1),
            0x0131: text(sheet.software),
            0x013D: short(_HORIZONTAL),
        }
        if sheet.channels in (2, 4):
            tags[0x0152] = short(_STRAIGHT_ALPHA)
        if sheet.xmp is not None:
            tags[0x02BC] = Value(BYTE, len(sheet.xmp), sheet.xmp)
        if sheet.icc is not None:
            tags[0x8773] = Value(UNDEFINED, len(sheet.icc), sheet.icc)
        return tags


def _about(sheet: Sheet) -> tuple[str, Directory]:
    """The source's tags as they will stand in the file, whose byte order is theirs."""
    return ("<", {}) if sheet.exif is None else read_block(sheet.exif)
