"""Measures a finished result against its source, band by band and without the truth at hand.

Bounded in memory: it keeps a few rows of the result, sums, and a histogram. It judges nothing: what numbers are
good is said in docs/fidelity.md, and warnings are given by whoever made the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.fidelity.color_error import ciede2000, to_lab
from serve_app.fidelity.edges import EdgeAgreement, Luma, Steps, seam_energy
from serve_app.fidelity.measures import BEST_PSNR_DB
from serve_app.levels import Levels, Pixels, from_levels
from serve_app.resample import BLOCK_ROWS, resize, resize_rows, source_rows

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BIN, _BINS = 0.01, 10_001  # of the histogram of colour errors; the last holds the rest
_MOST_COLORS = 2**20
"""Places whose colour is compared: each, or so many on a lattice."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured; see `contracts.FidelityReport`."""

    lr_psnr_db: float
    color_error_mean: float
    color_error_p99: float
    edge_agreement: float
    seam_energy: float


class Measuring:
    """Measures one result as it is written.

    Args:
        source: (h, w, 3), kept as it is.
        height: Of the result, px.
        width: Of the result, px.
        seam_rows: Rows of the result above which another tile has the most say: the middles of the fades.
        seam_columns: Columns likewise.
        alpha: (h, w) of the source, kept as it is: each place counts as much as it is seen. None, or hidden all
            over, lets all places count alike.
    """

    def __init__(
        self,
        source: Levels,
        height: int,
        width: int,
        seam_rows: Sequence[int],
        seam_columns: Sequence[int],
        alpha: Levels | None = None,
    ) -> None:
        self._source = source
        self._alpha = alpha if alpha is not None and alpha.any() else None
        self._height, self._width = height, width
        self._seams = seam_rows, seam_columns
        self._held = np.zeros((0, width, 3), np.float32)
        self._first = 0  # row of the result that `_held` begins with
        self._done = 0  # rows of the source that are compared
        self._square_error, self._seen = 0.0, 0.0
        self._histogram = np.zeros(_BINS)
        self._color_sum = 0.0
        self._stride = max(1, math.ceil(math.sqrt(source[..., 0].size / _MOST_COLORS)))
        self._edges = EdgeAgreement(*source.shape[:2], weighed=self._alpha is not None)
        self._steps = Steps(height, width), Steps(height, width)

    def add(self, rows: Pixels, top: int, alpha: Pixels | None = None) -> None:
        """Takes the result's next rows.

        Args:
            rows: (n, width, 3) float32 in [0, 1].
            top: The first of them; bands come in order and without gaps.
            alpha: (n, width) of the result, where it has one: a seam counts as much as it is seen.

        Raises:
            ValueError: if they do not continue the last ones.
        """
        end = self._first + len(self._held)
        if top != end or top + len(rows) > self._height or rows.shape[1] != self._width:
            raise ValueError(f"rows {top} to {top + len(rows)} do not follow row {end}")
        if any(self._seams):
            seen = np.float32(1) if alpha is None or self._alpha is None else alpha
            self._steps[0].add(rows @ _LUMA * seen)
            self._steps[1].add(self._enlarged(top, top + len(rows)) * seen)
        self._held = np.concatenate([self._held, rows])
        self._compare(top + len(rows))

    def end(self) -> Measures:
        """The measures of the whole.

        Raises:
            ValueError: if rows are missing.
        """
        length = self._source.shape[0]
        if self._done != length:
            raise ValueError(f"{self._done} of {length} rows of the source were compared")
        count = float(self._histogram.sum())
        mean_square = self._square_error / self._seen
        floor = 10 ** (-BEST_PSNR_DB / 10)
        return Measures(
            lr_psnr_db=-10 * math.log10(max(mean_square, floor)),
            color_error_mean=self._color_sum / count,
            color_error_p99=_BIN * int(np.searchsorted(np.cumsum(self._histogram), 0.99 * count)),
            edge_agreement=self._edges.value(),
            seam_energy=seam_energy(*self._steps, *self._seams),
        )

    def _enlarged(self, top: int, bottom: int) -> Luma:
        """Luma of the enlarged source."""
        length = self._source.shape[0]
        needed = source_rows(length, self._height, top, bottom)
        luma = from_levels(self._source[needed.start : needed.stop]) @ _LUMA
        across = resize(luma, len(needed), self._width)
        return resize_rows(across, needed.start, length, self._height, top, bottom)

    def _compare(self, end: int) -> None:
        """Compares the source's rows that the result's rows up to `end` tell in full."""
        length, width = self._source.shape[:2]
        stop = self._done
        while stop < length:
            bottom = min(stop + BLOCK_ROWS, length)
            if source_rows(self._height, length, stop, bottom).stop > end:
                break
            stop = bottom
        if stop > self._done:
            shrunk = resize_rows(self._held, self._first, self._height, length, self._done, stop)
            shrunk = resize(shrunk, len(shrunk), width)
            self._take(shrunk, from_levels(self._source[self._done : stop]))
            self._done = stop
        if stop < length:
            keep = source_rows(self._height, length, stop, min(stop + 1, length)).start
            self._held = self._held[keep - self._first :]
            self._first = keep
        else:
            self._first, self._held = end, self._held[:0]

    def _take(self, shrunk: Pixels, source: Pixels) -> None:
        alpha = self._alpha
        seen = None if alpha is None else from_levels(alpha[self._done : self._done + len(source)])
        squares = np.square(shrunk - source)
        shrunk = np.clip(shrunk, 0, 1)
        if seen is None:
            self._seen += squares.size
            self._edges.add(shrunk @ _LUMA, source @ _LUMA)
        else:
            squares *= seen[:, :, None]
            self._seen += 3 * float(seen.sum(dtype=np.float64))
            self._edges.add(shrunk @ _LUMA * seen, source @ _LUMA * seen, seen)
        self._square_error += float(squares.sum(dtype=np.float64))
        lattice = (
            slice(-self._done % self._stride, None, self._stride),
            slice(None, None, self._stride),
        )
        weight = None if seen is None else seen[lattice].ravel()
        self._count_colors(shrunk[lattice], source[lattice], weight)

    def _count_colors(self, shrunk: Pixels, source: Pixels, weight: Pixels | None) -> None:
        error = ciede2000(to_lab(shrunk), to_lab(source)).ravel()
        weighed = error if weight is None else error * weight
        self._color_sum += float(weighed.sum(dtype=np.float64))
        bins = np.minimum(np.rint(error / _BIN), _BINS - 1).astype(np.int64)
        self._histogram += np.bincount(bins, weight, minlength=_BINS)
