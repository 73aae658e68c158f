"""The correction: a result's colours and structure are brought back to what its source says, band by band.

Two things move a result. The wavelet fix replaces its low band, brightness and hue, by the source's. The
back-projection then adds what the result, scaled down, still lacks of its source. Both only add an enlargement
of something of the source's size, and both are linear until the last clip. So all rounds are done on the
source's grid, where they cost a sixteenth, and the result is shrunk once and gets one enlargement added.
This module refuses to know tiles, files and how strong it should be: see `noise.lowered`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from serve_app.choices import ColorFix
from serve_app.fidelity.axis import AxisFilter
from serve_app.fidelity.held import HeldRows
from serve_app.levels import Levels, Pixels, from_levels
from serve_app.resample import BLOCK_ROWS, resize, resize_rows, source_rows

LEVELS = 5
"""Levels of the wavelet on the result's grid: what is coarser than about 2 ** 5 px is its colour."""
_NO_EFFECT_SCALE = 1.0
_FULL_EFFECT_SCALE = 2.0
_ROUND_TRIP_REACH = (
    5  # source pixels that a pixel sees through an enlargement and back: 2 + 2 and rounding
)
_BAND_PIXELS = 1_280_000  # corrected at once: a wide result takes little more
_BAND_ROWS = (64, 128)  # at least what the blend gives at once; at most what is worth its margin


class Correction:
    """Corrects one result against its source, as its rows come.

    Args:
        source: (h, w, 3), kept as it is.
        height: Of the result, px.
        width: Of the result, px.
        strength: 0 to 1: the share of the lack that one round adds, tapered linearly from all of it at scale 2
            to nothing at scale 1, where the source is the only picture that shrinks to itself.
        rounds: Of back-projection, 0 or more.
        color_fix: WAVELET replaces the low band first, at any scale and whatever the strength.

    Raises:
        ValueError: if `rounds` is negative or `strength` is outside 0 to 1.

    Source:
        M. Irani and S. Peleg, "Improving resolution by image registration", 1991. The wavelet fix follows the
        idea of StableSR (J. Wang et al., 2023), whose levels are those of M. Holschneider's algorithme à trous.
    """

    def __init__(
        self,
        source: Levels,
        height: int,
        width: int,
        strength: float,
        rounds: int,
        color_fix: ColorFix,
    ) -> None:
        if rounds < 0 or not 0 <= strength <= 1:
            raise ValueError(
                f"rounds {rounds} must be 0 or more and strength {strength} within 0 to 1"
            )
        self._source = source
        self._height, self._width = height, width
        scale = min(height / source.shape[0], width / source.shape[1])
        taper = (scale - _NO_EFFECT_SCALE) / (_FULL_EFFECT_SCALE - _NO_EFFECT_SCALE)
        self._share = np.float32(strength * min(max(taper, 0.0), 1.0))
        rounds = rounds if self._share > 0 else 0
        wavelet = color_fix is ColorFix.WAVELET
        self._stages: list[_Filter | None] = [None] * rounds  # None: a round of back-projection
        if wavelet:
            self._stages.insert(0, _low_pass(source.shape, scale))
        self._trip = _round_trip(source.shape, height, width)
        self._margin = sum(stage.reach for stage in self._stages if stage is not None)
        self._margin += self._trip.reach * max(len(self._stages) - 1, 0)
        fewest, most = _BAND_ROWS
        self._band_rows = min(max(_BAND_PIXELS // width, fewest), most)
        self._result, self._lack = HeldRows(), HeldRows()
        self._top = 0  # the first row of the result that is not yet given

    @property
    def acts(self) -> bool:
        """False where every result stands as it is, but for the clip."""
        return bool(self._stages)

    def add(self, rows: Pixels) -> Iterator[Pixels]:
        """Takes the uncorrected result's next rows; where they are cut makes no difference.

        Args:
            rows: (n, width, 3) float32, about [0, 1]; not changed, and not to be changed.

        Yields:
            The corrected result's next rows, as soon as enough of those below them is known to say what they
            are: (m, width, 3) in [0, 1]. After the last ones have come, all have been given.
        """
        if not self.acts:
            yield np.clip(rows, 0, 1)
            return
        self._result.add(rows)
        self._shrink()
        bottom = self._known()
        if bottom < self._height:
            bottom -= (bottom - self._top) % self._band_rows  # a band costs its margin anew
        while self._top < bottom:
            end = min(self._top + self._band_rows, bottom)
            yield self._corrected(self._top, end)
            self._top = end
            self._forget()

    def _shrink(self) -> None:
        """What the result, scaled down, lacks of its source, in as many rows as are now known in full."""
        length, width = self._source.shape[:2]
        while self._lack.end < length:
            top, bottom = self._lack.end, min(self._lack.end + BLOCK_ROWS, length)
            needed = source_rows(self._height, length, top, bottom)
            if needed.stop > self._result.end:
                return
            rows = self._result.rows(needed.start, needed.stop)
            shrunk = resize_rows(rows, needed.start, self._height, length, top, bottom)
            lack = from_levels(self._source[top:bottom])
            lack -= resize(shrunk, len(shrunk), width)
            self._lack.add(lack)

    def _known(self) -> int:
        """The row after the last one of the result whose correction is known."""
        length, bottom = self._source.shape[0], self._top
        while bottom < self._height:
            below = min(bottom + BLOCK_ROWS, self._height)
            needed = source_rows(length, self._height, bottom, below)
            if _grown(needed, self._margin, length).stop > self._lack.end:
                break
            bottom = below
        return bottom

    def _forget(self) -> None:
        """Lets go of what neither a row that is still to be given nor one that is still to be shrunk needs."""
        length, lack_end = self._source.shape[0], self._lack.end
        if self._top == self._height:
            return
        needed = source_rows(length, self._height, self._top, self._top + 1)
        self._lack.drop(_grown(needed, self._margin, length).start)
        kept = self._top
        if lack_end < length:
            kept = min(kept, source_rows(self._height, length, lack_end, lack_end + 1).start)
        self._result.drop(kept)

    def _corrected(self, top: int, bottom: int) -> Pixels:
        """Some rows with what is to be added."""
        length, width = self._source.shape[:2]
        needed = source_rows(length, self._height, top, bottom)
        added = self._added(needed)
        across = resize(added, len(needed), self._width) if width != self._width else added
        moved = resize_rows(across, needed.start, length, self._height, top, bottom)
        moved = moved + self._result.rows(top, bottom)
        return np.clip(moved, 0, 1, out=moved)

    def _added(self, needed: range) -> Pixels:
        """What is to be added, on the source's grid: its rows `needed`."""
        at = _grown(needed, self._margin, self._source.shape[0])
        lack = self._lack.rows(at.start, at.stop)
        total = np.zeros_like(lack)
        for number, stage in enumerate(self._stages):
            step, inner = (lack * self._share, at) if stage is None else stage.apply(lack, at)
            lack, total, at = _cut(lack, at, inner), _cut(total, at, inner) + step, inner
            if number + 1 < len(self._stages):  # what was added is seen by the next stage
                seen, inner = self._trip.apply(step, at)
                lack, total, at = _cut(lack, at, inner) - seen, _cut(total, at, inner), inner
        return _cut(total, at, needed)


class _Filter:
    """An `AxisFilter` for each axis of the source's grid."""

    def __init__(self, down: AxisFilter, across: AxisFilter, length: int) -> None:
        self._down, self._across, self._length = down, across, length
        self.reach = down.reach

    def apply(self, rows: Pixels, at: range) -> tuple[Pixels, range]:
        """Filters the rows `at`; gives those that are then known, and which they are."""
        top = at.start + self.reach if at.start else 0
        bottom = at.stop - self.reach if at.stop < self._length else self._length
        return self._across.columns(self._down.rows(rows, at.start, top, bottom)), range(
            top, bottom
        )


def _round_trip(shape: tuple[int, ...], height: int, width: int) -> _Filter:
    """An enlargement to the result's size and back."""

    def axis(length: int, large: int) -> AxisFilter:
        def there_and_back(lines: Pixels) -> Pixels:
            columns = lines.shape[1]
            return resize(resize(lines, large, columns), length, columns)

        return AxisFilter(there_and_back, length, _ROUND_TRIP_REACH if large != length else 0)

    return _Filter(axis(shape[0], height), axis(shape[1], width), shape[0])


def _low_pass(shape: tuple[int, ...], scale: float) -> _Filter:
    """The wavelet's lowest band: on the source's grid it needs the fewer levels, the larger the scale."""
    levels = max(LEVELS - round(math.log2(max(scale, 1.0))), 1)

    def smoothed(lines: Pixels) -> Pixels:
        for level in range(levels):
            hole = 2**level
            padded = np.pad(lines, ((hole, hole), (0, 0)), mode="edge")
            lines = (padded[: -2 * hole] + padded[2 * hole :]) * np.float32(
                0.25
            ) + lines * np.float32(0.5)
        return lines

    reach = 2**levels - 1
    down, across = (AxisFilter(smoothed, length, reach) for length in shape[:2])
    return _Filter(down, across, shape[0])


def _grown(rows: range, margin: int, length: int) -> range:
    return range(max(rows.start - margin, 0), min(rows.stop + margin, length))


def _cut(rows: Pixels, at: range, inner: range) -> Pixels:
    return rows[inner.start - at.start : inner.stop - at.start]
