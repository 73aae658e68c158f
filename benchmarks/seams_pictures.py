"""The pictures on which seams would show: flat sky, gradients, text, regular texture, and a photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.quality_sources import WORK
from serve_app.levels import Pixels
from training import heldout, sources

SIDE_PX = 528  # two tiles of the embedded model and one overlap: no tile shares more than the least
_LINE_PX = 27
_PANGRAM = "Sphinx of black quartz, judge my vow: 0123456789. " * 3


def pictures(photos: Path | None) -> dict[str, Pixels]:
    """The originals by name, (528, 528, 3) in [0, 1].

    Args:
        photos: The unpacked packages; None fetches them with apt-get.
    """
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float32) / SIDE_PX
    sky = np.stack([0.35 + 0.3 * y, 0.55 + 0.2 * y, 0.85 + 0.08 * y], axis=-1)
    slopes = np.stack([x, y, (x + y) / 2], axis=-1)
    return {
        "flat sky": sky,
        "gradients": slopes,
        "text": _text(),
        "regular texture": _texture(x * SIDE_PX, y * SIDE_PX),
        "photograph": _photograph(photos),
    }


def _text() -> Pixels:
    page = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    font = ImageFont.load_default(20)
    for line, top in enumerate(range(0, SIDE_PX, _LINE_PX)):
        ImageDraw.Draw(page).text((4 - line, top), _PANGRAM, fill=(20, 20, 20), font=font)
    return np.asarray(np.asarray(page) / 255, np.float32)


def _texture(x: Pixels, y: Pixels) -> Pixels:
    """A weave of waves of 19, 23 and 31 px: no period is a tile's."""
    weave = 0.2 * np.sin(2 * np.pi * x / 19) * np.sin(2 * np.pi * y / 23)
    value = 0.5 + weave + 0.12 * np.sin(2 * np.pi * (x + y) / 31)
    return np.asarray(np.stack([value, value * 0.9, value * 0.75], axis=-1), np.float32)


def _photograph(photos: Path | None) -> Pixels:
    crop = heldout.CROPS[0]
    found = sources.pictures(photos or sources.fetch_packages(WORK))
    whole = next(picture for picture in found if picture.name.endswith(crop.path_ending)).pixels()
    pixels = heldout.reduced(whole, crop.reduce)
    rows = slice(crop.top_px, crop.top_px + SIDE_PX)
    return np.asarray(pixels[rows, crop.left_px : crop.left_px + SIDE_PX] / 255, np.float32)
