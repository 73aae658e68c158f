"""Two measures of structure that grow row by row: how well edges agree, and how much borders of tiles show.

They are fed luma in bands and keep a few rows and sums. They refuse to know colour and what a report is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Luma = NDArray[np.float32]

_SIMILAR = 170 / 255**2
_BESIDE = range(3, 11)  # px from a border: what it is compared with
_UNSEEN = (
    0.5 / 255
)  # a step that no 8-bit picture holds; keeps flat places from dividing by nothing


class EdgeAgreement:
    """Gradient magnitude similarity deviation (GMSD) of two pictures that come in bands of rows.

    Args:
        height: Rows of both.
        width: Columns of both.
        weighed: Whether places count by a weight that comes with them.

    Source:
        W. Xue et al., "Gradient magnitude similarity deviation", 2014.
    """

    def __init__(self, height: int, width: int, *, weighed: bool = False) -> None:
        self._pad = max(height % 2, width % 2)
        self._height, self._seen = height, 0
        planes = 3 if weighed else 2
        self._held = np.zeros((planes, 0, width + self._pad), np.float32)
        self._pooled = np.zeros((planes, 1, (width + self._pad) // 2), np.float32)  # zeros around
        self._count, self._sum, self._squares = 0.0, 0.0, 0.0

    def add(self, *planes: Luma) -> None:
        """Takes the next rows of one, the other and, if they are weighed, the weights: (n, width) each."""
        self._seen += len(planes[0])
        last = self._seen == self._height
        below = self._pad if last else 0
        rows = np.pad(np.stack(planes), ((0, 0), (0, below), (0, self._pad)))
        rows = np.concatenate([self._held, rows], axis=1)
        pairs, across = rows.shape[1] // 2, rows.shape[2] // 2
        self._held = rows[:, 2 * pairs :]
        squares = rows[:, : 2 * pairs, : 2 * across].reshape(len(rows), pairs, 2, across, 2)
        pooled = np.concatenate([self._pooled, squares.mean(axis=(2, 4))], axis=1)
        if last:
            pooled = np.pad(pooled, ((0, 0), (0, 1), (0, 0)))
        if pooled.shape[1] >= 3:
            self._compare(np.pad(pooled, ((0, 0), (0, 0), (1, 1))))
        self._pooled = pooled[:, -2:]

    def value(self) -> float:
        """0 for equal edges; higher is worse."""
        if not self._count:
            return 0.0
        mean = self._sum / self._count
        return float(np.sqrt(max(self._squares / self._count - mean * mean, 0.0)))

    def _compare(self, planes: NDArray[np.float32]) -> None:
        pooled = planes[:2]
        across = pooled[:, :, 2:] - pooled[:, :, :-2]
        down = pooled[:, 2:] - pooled[:, :-2]
        across = across[:, :-2] + across[:, 1:-1] + across[:, 2:]
        down = down[:, :, :-2] + down[:, :, 1:-1] + down[:, :, 2:]
        one, other = np.sqrt(across**2 + down**2) / 3
        lack = (one - other) ** 2 / (one**2 + other**2 + _SIMILAR)  # 1 - similarity: exact near 0
        weight = planes[2, 1:-1, 1:-1] if len(planes) > 2 else np.ones((1, 1), np.float32)
        self._count += float(weight.sum(dtype=np.float64)) * (lack.size / weight.size)
        self._sum += float((lack * weight).sum(dtype=np.float64))
        self._squares += float((np.square(lack) * weight).sum(dtype=np.float64))


class Steps:
    """The mean steps from each row to the next and from each column to the next, of a picture in bands.

    Args:
        height: Of the picture.
        width: Of the picture.
    """

    def __init__(self, height: int, width: int) -> None:
        self._rows = np.zeros(height)
        self._columns = np.zeros(width)
        self._height, self._width, self._at = height, width, 0
        self._last: Luma | None = None

    def add(self, rows: Luma) -> None:
        """Takes the next rows, (n, width)."""
        if self._last is None:
            self._last = rows[:1]
        down = np.diff(rows, axis=0, prepend=self._last)
        self._rows[self._at : self._at + len(rows)] = np.abs(down, out=down).mean(axis=1)
        across = np.diff(rows, axis=1)
        self._columns[1:] += np.abs(across, out=across).sum(axis=0)
        self._at += len(rows)
        self._last = rows[-1:]

    def at(
        self, rows: Sequence[int], columns: Sequence[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The step into each of these rows and columns, and the mean of those beside."""
        found = [_beside(self._rows, rows), _beside(self._columns / self._height, columns)]
        across, beside = np.concatenate(found, axis=1)
        return across, beside


def seam_energy(result: Steps, source: Steps, rows: Sequence[int], columns: Sequence[int]) -> float:
    """How much more the borders of tiles stand out than the enlarged source does there.

    Across all borders, the mean step over the mean step 3 to 10 px beside them; that of the result over that of
    the enlarged source, so that an edge of the picture which happens to lie at a border counts for nothing.

    Args:
        result: Its steps.
        source: Those of the enlarged source.
        rows: First rows of what another tile gives.
        columns: First columns likewise.

    Returns:
        1 where borders are as all else, and where there is none.
    """
    ratios = []
    for steps in (result, source):
        across, beside = steps.at(rows, columns)
        if not len(across):
            return 1.0
        ratios.append((across.mean() + _UNSEEN) / (beside.mean() + _UNSEEN))
    return float(ratios[0] / ratios[1])


def _beside(profile: NDArray[np.float64], places: Sequence[int]) -> NDArray[np.float64]:
    """(2, places): the step at each place, and the mean of those beside it."""
    kept = [place for place in places if 0 < place < len(profile)]
    found = np.zeros((2, len(kept)))
    for number, place in enumerate(kept):
        near = [place + side * away for away in _BESIDE for side in (-1, 1)]
        near = [other for other in near if 0 < other < len(profile)]
        found[:, number] = profile[place], profile[near].mean() if near else profile[place]
    return found
