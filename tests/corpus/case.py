"""A file of the corpus and what must become of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.settings import ImageLimits

OK, TOO_LARGE, UNSUPPORTED, BROKEN = 200, 413, 415, 422
REFUSED = frozenset({TOO_LARGE, UNSUPPORTED, BROKEN})
READ = frozenset({OK})
EITHER = REFUSED | READ
"""Damage that a decoder may pass over: a result or a refusal, but one of them."""

LIMITS = ImageLimits(
    upload_bytes=16 * 2**20,
    source_pixels=4_000_000,
    result_pixels=4_000_000,
    decode_timeout_s=20,
    decode_memory_bytes=2**30,
)
"""What the files are made for: the giants are over it, 12000 x 300 is under it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One file.

    Attributes:
        kind: Its class, a line of the table of outcomes.
        name: Its own name within the class.
        data: The file.
        statuses: The HTTP statuses that it may be answered with, 200 or of the 400s.
        size: Height and width of the picture, px, as it is seen; None where damage may change it.
        picture: The picture itself, (H, W, 3 or 4), 0 to 255; colours under full transparency do not matter.
        tolerance: Levels by which a result may differ from `picture` on average.
        filename: What the sender calls it.
        media_type: What the sender says it is.
        animated: Whether all frames are asked for; the picture is the first.
    """

    kind: str
    name: str
    data: bytes
    statuses: frozenset[int]
    size: tuple[int, int] | None = None
    picture: NDArray[np.uint8] | None = None
    tolerance: float = 0
    filename: str = "picture"
    media_type: str = "application/octet-stream"
    animated: bool = False

    @property
    def id(self) -> str:
        """Class and name."""
        return f"{self.kind}/{self.name}"


def bad(kind: str, name: str, data: bytes, statuses: Collection[int] = REFUSED) -> Case:
    """A file that must be refused, or at least not do harm."""
    return Case(kind, name, data, frozenset(statuses))


def good(
    kind: str,
    name: str,
    data: bytes,
    picture: NDArray[np.uint8],
    tolerance: float = 0.5,
    **sent: str,
) -> Case:
    """A file that must be read, and look as `picture` does."""
    height, width = picture.shape[:2]
    return Case(kind, name, data, READ, (height, width), picture, tolerance, **sent)
