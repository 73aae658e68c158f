"""Denoising: takes noise and compression marks out of a source before it is enlarged.

A network that is shown noise enlarges noise. Blocks of 8 x 8 px in 16 positions each lose those cosine
coefficients that are no larger than the noise, and the blocks are averaged; so edges, whose coefficients
are large, stay, and the errors of single blocks average out. It works in 32-bit floats and in bands,
so that 16-bit sources keep their depth and a large one costs no more memory than a small one. Chosen by
measurement: see docs/measurements/quality.md. This module refuses to know tiles, files and models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serve_app.levels import TOP_LEVEL, Levels, Pixels, from_levels, to_levels

_SIDE = 8  # of a block, px: JPEG's own, and what a cosine transform separates noise well in
_STRIDE = 2  # of the block positions; 4 takes a quarter of the time and loses 0.7 dB
_BAND_ROWS = 256
_SIGMAS = (
    2.4  # at amount 1, coefficients within so many standard deviations of the noise go; 3 cost 1 dB
)
# A JPEG's marks do not look like noise, so `noise_of` does not see them.
_LEAST_SIGMA = 5 / 255
_QUIET_SHARE = 0.2  # of the blocks: those with the least detail tell the noise
_QUIET_BIAS = 0.87  # the root mean square of 21 normal values that a fifth of all blocks fall below


def denoise(colour: Levels, amount: float, alpha: Levels | None = None) -> Levels:
    """Takes noise and blocking out of a picture and keeps its edges.

    Args:
        colour: (h, w, 3); not changed.
        amount: 0 gives the same array back; 1 takes out all that is no larger than 2.4 standard
            deviations of the noise that is found, at least 12 of 255 levels.
        alpha: (h, w) where the picture is transparent: noise is looked for in what is seen.

    Returns:
        (h, w, 3), 16 bits.

    Raises:
        ValueError: if `amount` is outside 0 to 1 or the picture has not three channels.

    Source:
        G. Yu and G. Sapiro, "DCT image denoising: a simple and effective image denoising algorithm", 2011, with
        the weights of O. G. Guleryuz, "Weighted averaging for denoising with overcomplete dictionaries", 2007.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount {amount} must be within 0 to 1")
    if colour.ndim != 3 or colour.shape[2] != 3:
        raise ValueError(f"a picture of three channels is needed, not {colour.shape}")
    if amount == 0:
        return colour
    threshold = np.float32(amount * _SIGMAS * max(noise_of(colour, alpha), _LEAST_SIGMA))
    quiet = np.empty_like(colour)
    for top in range(0, colour.shape[0], _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, colour.shape[0])
        quiet[top:bottom] = to_levels(_band(colour, top, bottom, threshold))
    return quiet


def noise_of(colour: Levels, alpha: Levels | None = None) -> float:
    """Estimates the standard deviation of a picture's noise, as a share of white.

    Args:
        colour: (h, w, 3).
        alpha: (h, w) where the picture is transparent; blocks that are partly hidden are left out.

    Returns:
        0 or more; 0 for pictures of fewer than 8 rows or columns. Read in the quietest fifth of the blocks, so
        texture counts little; perfectly even blocks (clipped, drawn) are left out.
    """
    height, width = (length // _SIDE * _SIDE for length in colour.shape[:2])
    if not height or not width:
        return 0.0
    frequency = np.add.outer(np.arange(_SIDE), np.arange(_SIDE))
    fine = (frequency > _SIDE) & (frequency < 2 * _SIDE - 2)
    found = []
    for top in range(0, height, _BAND_ROWS):
        rows = colour[top : min(top + _BAND_ROWS, height), :width]
        luma = np.moveaxis(from_levels(rows) @ _OPPONENT[:1].T, 2, 0)
        blocks = block_cosines(luma)[0].transpose(0, 2, 1, 3)[..., fine]
        details = np.sqrt(np.mean(np.square(blocks), axis=-1))
        if alpha is not None:
            shown = alpha[top : top + _BAND_ROWS][: len(rows), :width] > 0
            details = details[shown.reshape(-1, _SIDE, width // _SIDE, _SIDE).all(axis=(1, 3))]
        found.append(details.ravel())
    detail = np.concatenate(found)
    detail = detail[detail > 1 / TOP_LEVEL]
    return float(np.quantile(detail, _QUIET_SHARE)) / _QUIET_BIAS if detail.size else 0.0


def _band(colour: Levels, top: int, bottom: int, threshold: np.float32) -> Pixels:
    """The rows top..bottom denoised; `top` is a multiple of the block's side, so bands share one grid."""
    width = colour.shape[1]
    rows = _mirrored(top - _SIDE, bottom + _SIDE, colour.shape[0])
    columns = _mirrored(-_SIDE, width + _SIDE, width)
    planes = np.moveaxis(from_levels(colour[rows][:, columns]) @ _OPPONENT.T, 2, 0)
    total, weights = np.zeros_like(planes), np.zeros_like(planes)
    for down in range(0, _SIDE, _STRIDE):
        for right in range(0, _SIDE, _STRIDE):
            height, length = (
                (side - shift) // _SIDE * _SIDE
                for side, shift in zip(planes.shape[1:], (down, right), strict=True)
            )
            place = np.s_[:, down : down + height, right : right + length]
            blocks = block_cosines(planes[place])
            kept = np.abs(blocks) > threshold
            kept[:, :, 0, :, 0] = True  # the mean of a block
            weight = 1 / kept.sum(axis=(2, 4), keepdims=True, dtype=np.float32)
            blocks *= kept
            blocks *= weight
            total[place] += _back(blocks)
            weights[place] += np.broadcast_to(weight, blocks.shape).reshape(total[place].shape)
    total /= weights.clip(np.finfo(np.float32).tiny)
    inner = total[:, _SIDE : _SIDE + bottom - top, _SIDE : _SIDE + width]
    return np.moveaxis(inner, 0, 2) @ _OPPONENT


def block_cosines(planes: Pixels) -> Pixels:
    """The cosine coefficients of whole blocks of 8 x 8 px, orthonormal.

    Args:
        planes: (n, rows, columns), multiples of 8.

    Returns:
        (n, rows / 8, 8, columns / 8, 8), the lowest frequency first.
    """
    count, height, width = planes.shape
    across = planes.reshape(count, height, width // _SIDE, _SIDE) @ _COSINES.T
    down = _COSINES @ across.reshape(count, height // _SIDE, _SIDE, width)
    return np.asarray(down.reshape(count, height // _SIDE, _SIDE, width // _SIDE, _SIDE))


def _back(blocks: Pixels) -> Pixels:
    count, high, _, wide, _ = blocks.shape
    height, width = high * _SIDE, wide * _SIDE
    down = _COSINES.T @ blocks.reshape(count, high, _SIDE, width)
    return np.asarray(
        (down.reshape(count, height, wide, _SIDE) @ _COSINES).reshape(count, height, width)
    )


def _mirrored(first: int, last: int, length: int) -> NDArray[np.int64]:
    """Indexes first..last, up to a whole block, mirrored where they leave the picture."""
    last = first + -(-(last - first) // _SIDE) * _SIDE
    folded = np.arange(first, last) % (2 * length)
    return np.minimum(folded, 2 * length - 1 - folded)


def _cosines() -> Pixels:
    """The orthonormal cosine transform of 8 values, one frequency a row."""
    frequency, place = np.arange(_SIDE)[:, None], np.arange(_SIDE)[None]
    table = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    table[0] /= np.sqrt(2)
    return np.asarray(table, np.float32)


_COSINES = _cosines()
# Brightness and two differences of colour, orthonormal, so that noise of a size keeps its size.
_OPPONENT = np.array(
    [
        [3**-0.5, 3**-0.5, 3**-0.5],
        [2**-0.5, 0, -(2**-0.5)],
        [6**-0.5, -2 * 6**-0.5, 6**-0.5],
    ],
    np.float32,
)
