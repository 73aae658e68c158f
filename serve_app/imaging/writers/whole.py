"""WebP, AVIF and JPEG XL: formats whose encoders want the whole picture, of 8 bits, before they begin.

So the picture is held here, 4 bytes a pixel or 1 for gray, besides what the encoder itself takes. This module
refuses to know how to encode: libwebp, libavif and libjxl do, through Pillow.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import pillow_jxl  # noqa: F401  Pillow learns JPEG XL from it
from PIL import Image

from serve_app.imaging.ifd import ORIENTATION_TAG, read_block, write_block
from serve_app.imaging.writers.jpeg import FULL_COLOUR_QUALITY
from serve_app.imaging.writers.sheet import Samples, Sheet

# All on 1024 px photographs, one core.
# WebP: method 2 takes 50 ms, 4 (Pillow's choice) 110 for the same size, 6 220 for 2 % less.
_WEBP_METHOD = 2
# AVIF: speed 8 takes 430 ms, 6 (Pillow's choice) 1260 for 7 % less at the same quality, 10 220 for 6 % more.
_AVIF_SPEED = 8
# JPEG XL: effort 5 takes 195 ms, 7 (the plugin's choice) 575 for no fewer bytes, 4 57 for 8 % more.
_JXL_EFFORT = 5
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


class _WholeWriter:
    """Gathers the rows in a picture of Pillow's, then saves it."""

    kind: str

    def __init__(self, file: BinaryIO, sheet: Sheet) -> None:
        self._file, self._sheet = file, sheet
        self._image = Image.new(_MODES[sheet.channels], (sheet.width, sheet.height))
        self._top = 0

    def rows(self, samples: Samples) -> None:
        """Takes (n, width, channels) samples of 8 bits."""
        flat = samples[:, :, 0] if samples.shape[2] == 1 else samples
        self._image.paste(Image.fromarray(np.ascontiguousarray(flat)), (0, self._top))
        self._top += len(samples)

    def end(self) -> None:
        """Encodes the picture."""
        self._image.save(self._file, self.kind, **self.options(self._sheet))

    @classmethod
    def options(cls, sheet: Sheet) -> dict[str, Any]:
        """What Pillow is told when it saves."""
        given = {"exif": sheet.exif, "xmp": sheet.xmp, "icc_profile": sheet.icc}
        given |= {"quality": sheet.quality} | cls._own_options(sheet)
        return {name: value for name, value in given.items() if value is not None}

    @staticmethod
    def _own_options(sheet: Sheet) -> dict[str, Any]:
        raise NotImplementedError


class WebpWriter(_WholeWriter):
    """Writes a lossy WebP; transparency is kept exactly. It has no gray."""

    kind = "WEBP"

    @staticmethod
    def _own_options(_: Sheet) -> dict[str, Any]:
        return {"method": _WEBP_METHOD}


class AvifWriter(_WholeWriter):
    """Writes an AVIF of 8 bits, which is all that Pillow hands to libavif."""

    kind = "AVIF"

    @staticmethod
    def _own_options(sheet: Sheet) -> dict[str, Any]:
        full = sheet.quality >= FULL_COLOUR_QUALITY
        sampling = "4:0:0" if sheet.channels < 3 else "4:4:4" if full else "4:2:0"
        turned = None if sheet.exif is None else _unturned(sheet.exif)
        return {"subsampling": sampling, "speed": _AVIF_SPEED, "exif": turned}


class JxlWriter(_WholeWriter):
    """Writes a lossy JPEG XL in sRGB: its encoder here takes no profile."""

    kind = "JXL"

    @staticmethod
    def _own_options(_: Sheet) -> dict[str, Any]:
        return {"use_container": True, "effort": _JXL_EFFORT}


def _unturned(exif: bytes) -> bytes:
    """Without the orientation, which an AVIF states outside of EXIF; with it Pillow would rewrite the block."""
    order, directory = read_block(exif)
    return write_block({tag: v for tag, v in directory.items() if tag != ORIENTATION_TAG}, order)
