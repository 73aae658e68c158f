"""Lays a moving picture's frames over each other, as they are seen.

Files of GIF and PNG store of each frame only the part that changes. This module refuses to know file formats.

Source: the PNG specification, third edition, 11.3.6 and 13.13.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[
    Any
]  # (height, width, 1 to 4) uint8 or uint16; of 2 or 4 channels the last is alpha


class Disposal(Enum):
    """What becomes of a frame's place before the next frame is laid."""

    KEEP = auto()
    CLEAR = auto()
    PREVIOUS = auto()


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame as it is stored.

    Attributes:
        height: Rows, px.
        width: Columns, px.
        top: Where its first row lies on the canvas.
        left: Where its first column lies.
        duration_ms: How long it is shown, as the file tells it.
        disposal: What becomes of its place.
        over: Whether it is laid over what is there, not put in its stead.
        alone: Makes a file of it.
    """

    height: int
    width: int
    top: int
    left: int
    duration_ms: int
    disposal: Disposal
    over: bool
    alone: Callable[[], bytes]


def bares(shots: Sequence[Shot], height: int, width: int, holed: Container[int] = ()) -> bool:
    """Whether something of the canvas is seen on which nothing is drawn.

    It is bare at first, and where a frame was cleared, until all of it is drawn on; what is taken back leaves
    it as bare as it was.

    Args:
        shots: All frames.
        height: Rows of the canvas, px.
        width: Columns of it, px.
        holed: Which frames, from 0, do not draw on all of their place.
    """
    parts = [
        shot.height < height or shot.width < width or at in holed for at, shot in enumerate(shots)
    ]
    disposals = [shot.disposal for shot in shots]
    lasting = (at for at, disposal in enumerate(disposals) if disposal is not Disposal.PREVIOUS)
    on_bare = parts[: next(lasting, len(parts)) + 1]
    return any(on_bare) or (any(parts) and Disposal.CLEAR in disposals[:-1])


def composed(
    shots: Sequence[Shot], height: int, width: int, read: Callable[[bytes], Samples]
) -> Iterator[tuple[Samples, int]]:
    """Shows one frame after the other, as it looks on what came before it.

    Args:
        shots: All frames.
        height: Rows of the canvas, which begins empty, px.
        width: Columns of it, px.
        read: Decodes a frame's file; always to the same channels and type.

    Yields:
        (height, width, channels), valid until the next one is asked for, and its duration in ms.

    Raises:
        ValueError: a frame lies outside of the canvas, or has another size than was told.
    """
    canvas: Samples | None = None
    for shot in shots:
        if shot.left + shot.width > width or shot.top + shot.height > height:
            raise ValueError("a frame lies outside of the picture")
        drawn = read(shot.alone())
        if drawn.shape[:2] != (shot.height, shot.width):
            raise ValueError("it states two different sizes")
        if canvas is None:
            canvas = np.zeros((height, width, drawn.shape[2]), drawn.dtype)
        place = canvas[shot.top : shot.top + shot.height, shot.left : shot.left + shot.width]
        before = place.copy() if shot.disposal is Disposal.PREVIOUS else None
        place[:] = _over(drawn, place) if shot.over else drawn
        yield canvas, shot.duration_ms
        if shot.disposal is not Disposal.KEEP:
            place[:] = 0 if before is None else before


def _over(drawn: Samples, below: Samples) -> Samples:
    """Straight colour over straight colour."""
    if drawn.shape[2] in (1, 3):
        return drawn
    top = np.iinfo(drawn.dtype).max
    opacity = drawn[:, :, -1]
    if opacity.min() == top:
        return drawn
    found = np.where((opacity > 0)[:, :, None], drawn, below)
    mixed = (opacity > 0) & (opacity < top) & (below[:, :, -1] > 0)
    if mixed.any():
        found[mixed] = _blended(drawn[mixed], below[mixed], top)
    return found


def _blended(drawn: Samples, below: Samples, top: int) -> Samples:
    alpha = drawn[:, -1:] / top
    under = below[:, -1:] / top * (1 - alpha)
    both = alpha + under
    colour = (drawn[:, :-1] * alpha + below[:, :-1] * under) / both
    blended: Samples = np.rint(np.concatenate([colour, both * top], axis=1)).astype(drawn.dtype)
    return blended
