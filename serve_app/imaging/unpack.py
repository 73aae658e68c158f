"""Turns what a decoder delivers into upright colour and alpha, whatever way the file keeps them.

Gray, palettes, one colour declared transparent, 16 bits, ink colours: each is stored in its own way and all
leave here as the same two arrays. This module refuses to know bytes, limits and errors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve_app.imaging.inspect import Header
from serve_app.resample import Pixels


def unpack(image: Image.Image, header: Header) -> tuple[Pixels, Pixels | None]:
    """Unpacks a loaded picture.

    Args:
        image: As its decoder delivers it, in any of the modes of PNG, JPEG and WebP.
        header: What the file says of itself; it gives the orientation and the bits of a sample.

    Returns:
        Colour (H, W, 3) float32, [0, 1], sRGB, straight, as stored also where nothing is visible; and
        alpha (H, W) float32, [0, 1], or None if the file has no transparency. Both upright.
    """
    colour, alpha = _stored(image, header.bit_depth)
    turned = _upright(colour, header.orientation)
    return turned, None if alpha is None else _upright(alpha, header.orientation)


def _stored(image: Image.Image, bit_depth: int) -> tuple[Pixels, Pixels | None]:
    key = image.info.get("transparency")
    if image.mode == "I;16":
        gray = np.asarray(image, np.uint16)
        level = np.divide(gray, np.float32(65535), dtype=np.float32)
        alpha = None if key is None else (gray != key).astype(np.float32)
        return np.repeat(level[:, :, None], 3, axis=2), alpha
    if image.mode in ("1", "L", "RGB"):
        samples = np.asarray(image.convert("L") if image.mode == "1" else image)
        alpha = None if key is None else _unlike(samples, key, bit_depth)
        return _to_unit(np.asarray(image.convert("RGB"))), alpha
    if image.has_transparency_data:
        samples = np.asarray(image.convert("RGBA"))
        return _to_unit(samples[:, :, :3]), _to_unit(samples[:, :, 3])
    return _to_unit(np.asarray(image.convert("RGB"))), None


def _unlike(samples: NDArray[np.uint8], key: int | tuple[int, ...], bit_depth: int) -> Pixels:
    """1 wherever a pixel is not the one colour that the file declares transparent."""
    wanted = np.atleast_1d(np.asarray(key, np.int64))
    if bit_depth == 16:  # only the high byte of a sample has been decoded
        wanted = wanted >> 8
    elif bit_depth in (2, 4):  # samples have been spread to 8 bits, the key has not
        wanted = wanted * 255 // (2**bit_depth - 1)
    like = (samples.reshape(*samples.shape[:2], -1) == wanted).all(axis=2)
    unlike: Pixels = np.logical_not(like).astype(np.float32)
    return unlike


def _to_unit(samples: NDArray[np.uint8]) -> Pixels:
    return np.divide(samples, np.float32(255), dtype=np.float32)


def _upright(stored: Pixels, orientation: int) -> Pixels:
    """Turns stored rows the way the picture is seen. Source: EXIF 2.32, tag 0x0112."""
    if orientation >= 5:  # rows are columns
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)
