"""The photographs that training never sees, and the crops of them that the model is judged on.

They are kept as names and boxes rather than as files: the pixels come from the same packages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.sources import Picture

CROP_PX = 512
_MONUMENTS = "explore_monuments/resource"
_ERASE = "erase/resource"


@dataclass(frozen=True)
class HeldOut:
    """A square crop of a held-out photograph.

    Attributes:
        path_ending: how the picture's name ends; unique among all pictures.
        reduce: whole-number reduction before cropping (a soft photograph is sharp at half size).
        top_px: first row of the crop, after reduction.
        left_px: first column of the crop, after reduction.
    """

    path_ending: str
    reduce: int
    top_px: int
    left_px: int


CROPS: tuple[HeldOut, ...] = (
    HeldOut("mate/nature/LadyBird.jpg", 2, 128, 736),
    HeldOut("OneStandsOut/contents/images/2560x1600.jpg", 2, 0, 704),
    HeldOut("EveningGlow/contents/images/2560x1600.jpg", 2, 256, 576),
    HeldOut("Kleiber_by_Lukas_Baubkus.jpg", 3, 416, 480),
    HeldOut("astronaut.png", 1, 0, 0),
    HeldOut(f"{_ERASE}/cheetah.webp", 2, 0, 384),
    HeldOut(f"{_ERASE}/red_panda.webp", 2, 0, 256),
    HeldOut(f"{_ERASE}/butterfly.webp", 2, 0, 96),
    HeldOut(f"{_ERASE}/swans.webp", 1, 480, 672),
    HeldOut(f"{_ERASE}/kingfisher.webp", 2, 0, 256),
    HeldOut(f"{_ERASE}/toucan.webp", 2, 0, 96),
    HeldOut(f"{_MONUMENTS}/india/hawaMahal.webp", 1, 64, 288),
    HeldOut(f"{_MONUMENTS}/wonders/colosseum.webp", 1, 64, 256),
    HeldOut(f"{_MONUMENTS}/germany/neuschwansteinCastle.webp", 1, 160, 224),
    HeldOut("explore_world_animals/resource/animals/lemur.webp", 1, 160, 128),
    HeldOut("explore_farm_animals/resource/animals/cat.webp", 1, 192, 224),
)
UNCROPPED = ("scikit-image:chelsea.png", "scikit-image:coffee.png")


def is_held_out(name: str) -> bool:
    """Say whether a picture, named ``package:path``, is kept away from training."""
    return name in UNCROPPED or any(name.endswith(crop.path_ending) for crop in CROPS)


def split(pictures: Sequence[Picture]) -> tuple[list[Picture], list[Picture]]:
    """Part pictures into those to train on and those held out, by whole photographs."""
    train = [picture for picture in pictures if not is_held_out(picture.name)]
    held_out = [picture for picture in pictures if is_held_out(picture.name)]
    return train, held_out


def reduced(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Shrink a picture by a whole number with an antialiased bicubic filter."""
    if factor == 1:
        return pixels
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    shrunk = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(shrunk)


def cut(crop: HeldOut, pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Cut one held-out crop, shape (512, 512, 3).

    Raises:
        LookupError: the photograph is not among the pictures.
    """
    for picture in pictures:
        if picture.name.endswith(crop.path_ending):
            pixels = reduced(picture.pixels(), crop.reduce)
            rows = slice(crop.top_px, crop.top_px + CROP_PX)
            return pixels[rows, crop.left_px : crop.left_px + CROP_PX]
    raise LookupError(f"held-out photograph {crop.path_ending} is not among the sources")
