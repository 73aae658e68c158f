"""Make training pairs: the latents of a sharp crop and of the control picture that stands for it.

The control picture is what the service makes: the small source resized to the output size. So each
crop is made small (mostly 4 times, mostly clean) and large again, and the middle of both is encoded.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from training.autoencoder import to_tensor
from training.config import NATIVE_SCALE

_BICUBIC = Image.Resampling.BICUBIC
_OTHER_SCALES = (1.5, 2.0, 2.0, 2.5, 3.0, 3.0, 6.0)
_OTHER_SCALE_SHARE = 0.2
_ENCODE_BATCH = 16


@dataclass(frozen=True)
class Pairs:
    """Normalised latents of originals and controls, each (n, channels, height, width), bfloat16."""

    originals: Tensor
    controls: Tensor


def degrade(original: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make a crop's control picture: shrink it as a source would be, then resize it back.

    Args:
        original: the sharp crop, shape (height, width, 3).
        rng: chooses scale, filter, and now and then a mild blur, noise or JPEG.

    Returns:
        The control picture, same shape.
    """
    image = Image.fromarray(original)
    scale = rng.choice(_OTHER_SCALES) if rng.random() < _OTHER_SCALE_SHARE else NATIVE_SCALE
    small_size = (max(4, round(image.width / scale)), max(4, round(image.height / scale)))
    draw = rng.random(4)
    if draw[0] < 0.08:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.3 * float(scale))))
    kinds = (Image.Resampling.BOX, Image.Resampling.LANCZOS)
    small = image.resize(small_size, _BICUBIC if draw[1] < 0.88 else kinds[rng.integers(2)])
    if draw[2] < 0.06:
        noise = rng.normal(0, rng.uniform(0.5, 3), (small.height, small.width, 3))
        noisy = np.asarray(small).astype(np.float32) + noise
        small = Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
    if draw[3] < 0.10:
        small = _through_jpeg(small, int(rng.integers(75, 97)))
    return np.asarray(small.resize((original.shape[1], original.shape[0]), _BICUBIC))


def pixel_pair(
    crop: NDArray[np.uint8], size_px: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Turn a crop into an (original, control) pair, flipped and turned at random.

    Args:
        crop: a square crop; its rim gives the resize its context and is then cut away.
        size_px: side of the pair's pictures.
        rng: of the flips and the degradation.

    Returns:
        Two pictures of shape (size_px, size_px, 3).
    """
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < 0.3:
        crop = crop.transpose(1, 0, 2)
    crop = np.ascontiguousarray(crop)
    control = degrade(crop, rng)
    rim = (crop.shape[0] - size_px) // 2
    middle = slice(rim, rim + size_px)
    return crop[middle, middle], control[middle, middle]


@torch.no_grad()
def encode(model: AutoencoderTiny, pixels: Tensor) -> Tensor:
    """Encode pixels of -1 to 1 into normalised latents."""
    latents = model.encode(pixels).latents
    normal: Tensor = (latents - model.config.shift_factor) * model.config.scaling_factor
    return normal


def build_pairs(
    model: AutoencoderTiny,
    crops: NDArray[np.uint8],
    size_px: int,
    rounds: int,
    seed: int,
    cache: Path,
) -> Pairs:
    """Encode every crop ``rounds`` times with different flips and degradations, or read them back.

    Args:
        model: the trained autoencoder.
        crops: training crops, shape (n, height, width, 3).
        size_px: side of the encoded pictures, less than the crops'.
        rounds: variants of each crop.
        seed: of flips and degradations.
        cache: file to keep the pairs in.

    Returns:
        ``rounds * n`` pairs.
    """
    if cache.exists():
        state = torch.load(cache, weights_only=True)
        return Pairs(state["originals"], state["controls"])
    rng = np.random.default_rng((seed, size_px))
    originals: list[Tensor] = []
    controls: list[Tensor] = []
    model = model.to(memory_format=torch.channels_last)
    order = np.tile(np.arange(len(crops)), rounds)
    for begin in range(0, len(order), _ENCODE_BATCH):
        chosen = order[begin : begin + _ENCODE_BATCH]
        made = [pixel_pair(crops[index], size_px, rng) for index in chosen]
        both = to_tensor(np.stack([pair[0] for pair in made] + [pair[1] for pair in made]))
        with torch.autocast("cpu", torch.bfloat16):
            latents = encode(model, both).to(torch.bfloat16).contiguous()
        originals.append(latents[: len(made)])
        controls.append(latents[len(made) :])
    pairs = Pairs(torch.cat(originals), torch.cat(controls))
    torch.save({"originals": pairs.originals, "controls": pairs.controls}, cache)
    return pairs


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
