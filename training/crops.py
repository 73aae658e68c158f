"""Cut the training crops: sharp originals, chosen for detail, from photographs and drawings.

Crops are drawn once with a fixed seed and kept in one array, so that every later phase reads plain
memory. Text and line drawings are made here rather than fetched: they teach edges.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.heldout import reduced
from training.sources import Picture

_DRAWING_SHARE = 0.12
_SYNTHETIC_SHARE = 0.04
_ANY_CROP_SHARE = 0.2
_CANDIDATES = 3
_SUPERSAMPLE = 3
_WORDS = [
    "Tessera",
    "mosaic",
    "0123456789",
    "The",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "&",
    "(42%)",
]


def build_crops(
    pictures: Sequence[Picture], count: int, seed: int, cache: Path, size_px: int
) -> NDArray[np.uint8]:
    """Cut training crops, or read them back where an earlier run cut them.

    Args:
        pictures: the training pictures, never the held-out ones.
        count: how many crops.
        seed: of the drawing of places.
        cache: ``.npy`` file to keep them in.
        size_px: side of a crop.

    Returns:
        Crops of shape (count, size_px, size_px, 3), RGB, shuffled.
    """
    if cache.exists():
        kept: NDArray[np.uint8] = np.load(cache, mmap_mode="r")
        return kept
    rng = np.random.default_rng(seed)
    counts = _crops_per_picture(pictures, count)
    crops: list[NDArray[np.uint8]] = []
    for picture, wanted in zip(pictures, counts, strict=True):
        levels = _levels(picture.pixels(), size_px)
        crops += [_pick(levels, size_px, rng) for _ in range(wanted if levels else 0)]
    crops += [_synthetic(size_px, rng) for _ in range(count - len(crops))]
    order = rng.permutation(len(crops))
    pool = np.stack([crops[index] for index in order])
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, pool)
    return pool


def _crops_per_picture(pictures: Sequence[Picture], count: int) -> list[int]:
    weights = np.array([_weight(picture) for picture in pictures])
    photographic = np.array([picture.source.photographic for picture in pictures])
    photo_share = 1 - _DRAWING_SHARE - _SYNTHETIC_SHARE
    share = np.where(
        photographic,
        photo_share * weights / max(weights[photographic].sum(), 1),
        _DRAWING_SHARE * weights / max(weights[~photographic].sum(), 1),
    )
    return [int(value) for value in np.floor(share * count)]


def _weight(picture: Picture) -> float:
    height, width, _ = picture.pixels().shape
    return float(np.sqrt(min(height * width, 2_500_000)))


def _levels(pixels: NDArray[np.uint8], size_px: int) -> list[NDArray[np.uint8]]:
    """The picture at full, half and third size, as far as a crop fits."""
    levels = [reduced(pixels, factor) for factor in (1, 2, 3)]
    longer = max(pixels.shape[:2])
    if longer > 3000:
        levels = levels[1:]
    return [level for level in levels if min(level.shape[:2]) >= size_px]


def _pick(
    levels: Sequence[NDArray[np.uint8]], size_px: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    tries = 1 if rng.random() < _ANY_CROP_SHARE else _CANDIDATES
    candidates = [
        _random_crop(levels[int(rng.integers(len(levels)))], size_px, rng) for _ in range(tries)
    ]
    return max(candidates, key=_detail)


def _random_crop(
    pixels: NDArray[np.uint8], size_px: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    top = rng.integers(pixels.shape[0] - size_px + 1)
    left = rng.integers(pixels.shape[1] - size_px + 1)
    return pixels[top : top + size_px, left : left + size_px]


def _detail(crop: NDArray[np.uint8]) -> float:
    grey = crop.astype(np.float32).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def _synthetic(size_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Text, lines and shapes on a flat ground or a gradient, drawn large and shrunk."""
    size = size_px * _SUPERSAMPLE
    ends = rng.integers(0, 256, (2, 3))
    if rng.random() < 0.6:
        ends[1] = ends[0]
    ramp = np.linspace(0, 1, size)[:, None, None]
    ground = np.broadcast_to(ends[0] * (1 - ramp) + ends[1] * ramp, (size, size, 3))
    image = Image.fromarray(ground.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(4, 14)):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        x, y, right, below = (float(value) for value in rng.uniform(-40, size, 4))
        kind = rng.integers(4)
        if kind == 0:
            draw.line((x, y, right, below), fill=colour, width=int(rng.integers(2, 24)))
        elif kind == 1:
            radius = abs(right) / 4
            draw.ellipse(
                (x, y, x + radius, y + radius), outline=colour, width=int(rng.integers(2, 20))
            )
        else:
            words = " ".join(rng.choice(_WORDS, 4))
            font = ImageFont.load_default(float(rng.integers(26, 110)))
            draw.text((x - 60, y), words, fill=colour, font=font)
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.LANCZOS))
