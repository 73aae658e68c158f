"""The one resampler: everything that scales pixels scales them with these weights.

Source and result must be compared on the same footing (back-projection), and a picture's colour and its
transparency must move together, so there is exactly one filter: bicubic (a = -0.5), widened by the
reduction when shrinking. It works on float32 and loses nothing to 8 bits. This module refuses to know
formats, colour, tiles and limits: it maps arrays to arrays.

How it is fast: an output row depends on a few neighbouring input rows, so a block of output rows is a
small dense matrix times a slice of the input. Measured on one core against Pillow's mode "F", channel by
channel, equal within 3e-7: 256 -> 1024 px 2.5 ms against 9, 1024 -> 256 px 3.5 against 7,
1024 -> 4096 px 65 against 380.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]

_SUPPORT = 2.0  # of the cubic, in input pixels when enlarging
BLOCK_ROWS = 16  # output rows per product; 16 measured best of 16, 32, 64, 128
_SERIAL_PRODUCT = 2**18  # up to this many multiplications OpenBLAS stays on the caller's thread


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scales pixels with an antialiased bicubic filter; the result is not clipped.

    Edges are handled by leaving out what lies outside and renormalising. An axis whose length does not
    change keeps its values bit for bit. NumPy holds no GIL while it multiplies.

    Args:
        pixels: (H, W) or (H, W, C) float32, finite, any range.
        height: Rows of the result, 1 or more.
        width: Columns of the result, 1 or more.

    Returns:
        (height, width) or (height, width, C) float32, contiguous; the same array if no size changes.

    Raises:
        ValueError: if a length is below 1, the array is empty, or it has not 2 or 3 axes.

    Source:
        R. G. Keys, "Cubic convolution interpolation for digital image processing", 1981; the widening
        when shrinking and the treatment of edges follow Pillow's `Image.resize`, so that a reader can check.
    """
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels must be (H, W) or (H, W, C) and not empty, not {pixels.shape}")
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be 1 or more, not {height} and {width}")
    if pixels.shape[:2] == (height, width):
        return pixels
    planes = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if height < planes.shape[0]:  # the axis that shrinks goes first: less is left for the other
        planes = _scale_columns(_scale_rows(planes, height), width)
    else:
        planes = _scale_rows(_scale_columns(planes, width), height)
    return np.ascontiguousarray(planes).reshape(height, width, *pixels.shape[2:])


def source_rows(length: int, height: int, top: int, bottom: int) -> range:
    """Which rows of a picture say what some rows of its enlarged or reduced self are.

    They begin and end at multiples of `BLOCK_ROWS`, or with the picture: cut there, `resize` scales their
    columns bit-equal to those of the whole.

    Args:
        length: Rows of the picture.
        height: Rows of the scaled picture.
        top: The first row asked for.
        bottom: The row below the last one asked for; above `top`, at most `height`.
    """
    if length == height:
        first, end = top, bottom
    else:
        starts, bands = _bands(length, height)
        first = starts[top // BLOCK_ROWS]
        end = starts[(bottom - 1) // BLOCK_ROWS] + bands.shape[2]
    return range(first // BLOCK_ROWS * BLOCK_ROWS, min(-(-end // BLOCK_ROWS) * BLOCK_ROWS, length))


def resize_rows(
    pixels: Pixels, first: int, length: int, height: int, top: int, bottom: int
) -> Pixels:
    """Scales the rows of a picture of which only some are at hand; columns are left as they are.

    Args:
        pixels: (n, W) or (n, W, C) float32: the rows from `first` on; at least `source_rows`.
        first: Where in the picture they begin.
        length: Rows of the whole picture.
        height: Rows of the whole picture when scaled.
        top: The first scaled row asked for.
        bottom: The scaled row below the last one asked for.

    Returns:
        (bottom - top, W) or (bottom - top, W, C) float32, bit-equal to those rows of the whole scaled alone.

    Raises:
        ValueError: if a row that is needed is missing.
    """
    needed = source_rows(length, height, top, bottom)
    if first > needed.start or first + len(pixels) < needed.stop:
        raise ValueError(f"rows {needed} are needed, not {first} to {first + len(pixels)}")
    if length == height:
        return pixels[top - first : bottom - first]
    starts, bands = _bands(length, height)
    flat = np.ascontiguousarray(pixels, dtype=np.float32).reshape(len(pixels), -1)
    blocks = range(top // BLOCK_ROWS, -(-bottom // BLOCK_ROWS))
    above = blocks.start * BLOCK_ROWS
    scaled = np.empty((min(blocks.stop * BLOCK_ROWS, height) - above, flat.shape[1]), np.float32)
    span = bands.shape[2]
    strip = max(BLOCK_ROWS, _SERIAL_PRODUCT // (BLOCK_ROWS * span))
    for block in blocks:
        rows = slice(block * BLOCK_ROWS - above, (block + 1) * BLOCK_ROWS - above)
        band, start = bands[block, : len(scaled[rows])], starts[block] - first
        for left in range(0, flat.shape[1], strip):
            columns = slice(left, left + strip)
            np.matmul(band, flat[start : start + span, columns], out=scaled[rows, columns])
    return scaled[top - above : bottom - above].reshape(bottom - top, *pixels.shape[1:])


def _scale_rows(planes: Pixels, height: int) -> Pixels:
    return resize_rows(planes, 0, len(planes), height, 0, height)


def _scale_columns(planes: Pixels, width: int) -> Pixels:
    """Scales columns in groups of `BLOCK_ROWS` rows, so that what is cut between two groups equals the whole.

    The last places of a BLAS product depend on how wide it is and where in it a number stands.
    """
    height, length, channels = planes.shape
    if length == width:
        return planes
    starts, bands = _bands(length, width)
    span = bands.shape[2]
    scaled = np.empty((height, width, channels), np.float32)
    whole = height // BLOCK_ROWS * BLOCK_ROWS
    for rows in (slice(0, whole), slice(whole, height)):
        part = planes[rows]
        if not len(part):
            continue
        side = min(BLOCK_ROWS, len(part))
        groups = part.reshape(-1, side, length, channels).transpose(0, 2, 1, 3)
        flat = np.ascontiguousarray(groups, dtype=np.float32).reshape(-1, length, side * channels)
        turned = np.empty((len(flat), width, side * channels), np.float32)
        for block, start in enumerate(starts):
            columns = slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, width))
            band = bands[block, : columns.stop - columns.start]
            np.matmul(band, flat[:, start : start + span], out=turned[:, columns])
        back = turned.reshape(-1, width, side, channels).transpose(0, 2, 1, 3)
        scaled[rows] = back.reshape(-1, width, channels)
    return scaled


@lru_cache(maxsize=16)
def _bands(length: int, scaled: int) -> tuple[tuple[int, ...], Pixels]:
    """The weights from `length` to `scaled` pixels, as (blocks, rows, span) and each block's first input."""
    step = length / scaled
    stretch = max(step, 1.0)
    centre = (np.arange(scaled) + 0.5) * step
    first = np.maximum((centre - _SUPPORT * stretch + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + _SUPPORT * stretch + 0.5).astype(np.int64), length)
    reach = first[:, None] + np.arange(int((end - first).max()))
    inside = reach < end[:, None]
    weights = np.where(inside, _cubic((reach + 0.5 - centre[:, None]) / stretch), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)

    block_firsts = first[::BLOCK_ROWS]
    last_rows = np.minimum(np.arange(1, len(block_firsts) + 1) * BLOCK_ROWS, scaled) - 1
    span = int((end[last_rows] - block_firsts).max())
    starts = np.minimum(block_firsts, length - span)
    bands = np.zeros((len(starts), BLOCK_ROWS, span), np.float32)
    row, tap = np.nonzero(inside)
    block = row // BLOCK_ROWS
    bands[block, row % BLOCK_ROWS, reach[row, tap] - starts[block]] = weights[row, tap]
    bands.flags.writeable = False
    return tuple(int(start) for start in starts), bands


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))
