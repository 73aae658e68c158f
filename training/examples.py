"""Make what training on pixels is fed: originals, their small sources and control pictures.

The service's bicubic filter stands here as matrices, so that gradients pass through
back-projection.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serve_app.resample import resize
from training.autoencoder import to_tensor
from training.flow import GUIDANCE_NEUTRAL, GUIDANCE_RANGE, exaggerate

SIZE_PX = 128
SCALES = (4, 4, 4, 4, 4, 4, 4, 4, 2, 3)  # drawn evenly: x4 is what is judged
_NOISE = 0.015
_NOISY_SHARE = 0.1


class Resampler:
    """Shrinks and enlarges by one factor, with the service's weights.

    Args:
        size_px: side of the large pictures.
        scale: factor between large and small.
    """

    def __init__(self, size_px: int, scale: float) -> None:
        small = round(size_px / scale)
        self.down = _matrix(size_px, small)
        self.up = _matrix(small, size_px)

    def shrink(self, pixels: Tensor) -> Tensor:
        """Large to small, over the last two axes."""
        return self.down @ pixels @ self.down.T

    def enlarge(self, pixels: Tensor) -> Tensor:
        """Small to large, over the last two axes."""
        return self.up @ pixels @ self.up.T

    def backproject(self, pixels: Tensor, source: Tensor, rounds: int) -> Tensor:
        """Add back what the shrunk picture lacks, as the service does."""
        for _ in range(rounds):
            pixels = pixels + self.enlarge(source - self.shrink(pixels))
        return pixels


@dataclass(frozen=True)
class Example:
    """A batch for one step from pure noise, pixels of -1 to 1.

    Attributes:
        original: what the sources were made from, shape (batch, 3, height, width).
        source: small pictures.
        control: those resized, same shape as the originals.
        wanted: originals, with their detail weighed by the guidance.
        guidance: shape (batch,).
    """

    original: Tensor
    source: Tensor
    control: Tensor
    wanted: Tensor
    guidance: Tensor


def make_example(
    crops: NDArray[np.uint8], rows: int, resampler: Resampler, rng: np.random.Generator
) -> Example:
    """Draw originals and make their sources and control pictures as the service would.

    Args:
        crops: training crops of at least 128 px, shape (n, height, width, 3).
        rows: originals in the batch; every second one stands at neutral guidance.
        resampler: of the scale to train.
        rng: of crops, flips, guidance and noise.

    Returns:
        The batch.
    """
    original = _originals(crops, rows, rng)
    source = resampler.shrink(original).clamp(-1, 1)
    if rng.random() < _NOISY_SHARE:
        noise = torch.from_numpy(rng.standard_normal(source.shape, np.float32))
        source = (source + _NOISE * float(rng.random()) * noise).clamp(-1, 1)
    source = ((source + 1) * 127.5).round() / 127.5 - 1
    control = resampler.enlarge(source).clamp(-1, 1)
    guidance = torch.from_numpy(rng.uniform(*GUIDANCE_RANGE, rows).astype(np.float32))
    guidance[::2] = GUIDANCE_NEUTRAL
    wanted = exaggerate(original, control, guidance)
    return Example(original, source, control, wanted, guidance)


def _originals(crops: NDArray[np.uint8], rows: int, rng: np.random.Generator) -> Tensor:
    picks = rng.integers(0, len(crops), rows)
    top, left = rng.integers(0, crops.shape[1] - SIZE_PX + 1, 2)
    pixels = np.stack([crops[i, top : top + SIZE_PX, left : left + SIZE_PX] for i in picks])
    if rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    if rng.random() < 0.3:
        pixels = pixels.transpose(0, 2, 1, 3)
    return to_tensor(pixels)


def _matrix(length: int, target: int) -> Tensor:
    columns = resize(np.eye(length, dtype=np.float32)[:, :, None], target, length)[:, :, 0]
    return torch.from_numpy(np.ascontiguousarray(columns))
