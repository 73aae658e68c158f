"""The held-out photographs of the quality benchmark, and how they are made worse before they are upscaled.

The photographs come from the packages that `training.photographs` names; their licences are given there.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve_app.levels import Pixels
from training import heldout, sources
from training.metrics import shrink

SCALE = 4
WORK = Path(tempfile.gettempdir()) / "tessera-photographs"


@dataclass(frozen=True)
class Photograph:
    """One held-out crop: its name, its licence, and its (512, 512, 3) pixels in [0, 1]."""

    name: str
    licence: str
    original: Pixels

    @property
    def source(self) -> Pixels:
        """A quarter of each side, bicubic, 8 bits."""
        return shrink(self.original, SCALE)


def photographs(photos: Path | None, every: int = 1) -> list[Photograph]:
    """Opens the held-out crops.

    Args:
        photos: The unpacked packages; None fetches them with apt-get.
        every: Takes each `every`-th crop.
    """
    pictures = sources.pictures(photos or sources.fetch_packages(WORK))
    found = []
    for crop in heldout.CROPS[::every]:
        owner = next(p for p in pictures if p.name.endswith(crop.path_ending))
        pixels: NDArray[np.uint8] = heldout.cut(crop, pictures)
        original = np.asarray(pixels / 255, np.float32)
        found.append(Photograph(owner.name, owner.source.licence, original))
    return found


def with_noise(sigma: float) -> Callable[[Pixels], Pixels]:
    """Adds normal noise of `sigma` of 255 levels, the same for each picture."""

    def worse(picture: Pixels) -> Pixels:
        noise = np.random.default_rng(0).normal(0, sigma / 255, picture.shape)
        return np.asarray(np.round(np.clip(picture + noise, 0, 1) * 255) / 255, np.float32)

    return worse


def as_jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    """Writes as a JPEG with halved colour, and reads that."""

    def worse(picture: Pixels) -> Pixels:
        buffer = io.BytesIO()
        levels = np.round(picture * 255).astype(np.uint8)
        Image.fromarray(levels).save(buffer, "jpeg", quality=quality, subsampling="4:2:0")
        return np.asarray(np.asarray(Image.open(buffer)) / 255, np.float32)

    return worse


WORSE: dict[str, Callable[[Pixels], Pixels]] = {
    "noise of sigma 5": with_noise(5),
    "noise of sigma 10": with_noise(10),
    "JPEG of quality 60": as_jpeg(60),
    "JPEG of quality 85": as_jpeg(85),
}
