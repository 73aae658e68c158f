"""JPEG as the rows come: strips that Pillow encodes one by one, joined at restart markers.

Pillow wants the whole picture first. But an encoder that restarts after each row of blocks carries nothing
from one to the next, so strips encoded alone, with the same tables, hold the very bytes that the whole would.
A strip is eight rows of blocks, the cycle of the restart markers, which then stand right across strips. The
first strip's header serves for all, with the whole height put in.

Source: ITU-T T.81, sections B.2.4.4 (restart interval) and F.1.1.5 (its effect), annex B (segments).
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from serve_app.imaging.writers.sheet import Portions, Samples, Sheet

# From this quality up a caller wants the colour edges whole.
FULL_COLOUR_QUALITY = 90

_RESTARTS = 8  # markers 0 to 7, then 0 again
_LAST_RESTART = b"\xff\xd7"
_END = b"\xff\xd9"
_START_OF_FRAME, _START_OF_SCAN = 0xC0, 0xDA


class JpegWriter:
    """Writes a baseline JPEG, gray or colour; it has no alpha and 8 bits."""

    def __init__(self, file: BinaryIO, sheet: Sheet) -> None:
        self._file, self._sheet = file, sheet
        self._full_colour = sheet.quality >= FULL_COLOUR_QUALITY
        block_px = 8 if self._full_colour or sheet.channels == 1 else 16
        self._portions = Portions(_RESTARTS * block_px, sheet.height, self._write_strip)
        self._first = True

    def rows(self, samples: Samples) -> None:
        """Takes (n, width, 1 or 3) samples of 8 bits."""
        self._portions.add(samples)

    def end(self) -> None:
        """Writes the last marker."""
        self._file.write(_END)

    def _write_strip(self, samples: Samples) -> None:
        strip = BytesIO()
        flat = samples[:, :, 0] if samples.shape[2] == 1 else samples
        Image.fromarray(np.ascontiguousarray(flat)).save(
            strip,
            "JPEG",
            quality=self._sheet.quality,
            subsampling="4:4:4" if self._full_colour else "4:2:0",
            restart_marker_rows=1,
            **(self._about() if self._first else {}),
        )
        data = bytearray(strip.getvalue())
        scan = _begin(data, self._sheet.height)
        self._file.write(data[: len(data) - 2] if self._first else _LAST_RESTART + data[scan:-2])
        self._first = False

    def _about(self) -> dict[str, Any]:
        sheet = self._sheet
        given = {
            "exif": None if sheet.exif is None else b"Exif\0\0" + sheet.exif,
            "xmp": sheet.xmp,
            "icc_profile": sheet.icc,
        }
        return {name: value for name, value in given.items() if value is not None}


def _begin(data: bytearray, height: int) -> int:
    """Puts the whole picture's height into a strip's header; says where its coded blocks begin."""
    at, marker = 2, 0
    while marker != _START_OF_SCAN:
        _, marker, length = struct.unpack_from(">BBH", data, at)
        if marker == _START_OF_FRAME:
            struct.pack_into(">H", data, at + 5, height)
        at += 2 + int(length)
    return at
