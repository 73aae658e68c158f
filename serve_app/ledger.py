"""What a request in progress keeps count of: its tiles and steps, and the time of its stages."""

from __future__ import annotations

import time

from serve_app.contracts import Progress, ProgressCallback


class Ledger:
    """Counts tiles and steps, and tells the caller at each change.

    Args:
        tiles: Of the picture.
        steps: Of each tile.
        on_progress: Told at each change.

    Attributes:
        retried: Tiles sent again, for whatever fault.
        replaced: Tiles given up, for which the plain resize stands in.
    """

    def __init__(self, tiles: int, steps: int, on_progress: ProgressCallback) -> None:
        self._steps = [0] * tiles
        self._steps_each = steps
        self._tiles_done = 0
        self._on_progress = on_progress
        self.retried = 0
        self.replaced: list[int] = []

    def steps(self, index: int, done: int) -> None:
        """A tile has so many steps done."""
        if done > self._steps[index]:  # a tile that was sent again first catches up, in silence
            self._steps[index] = done
            self.report("denoise")

    def done(self, index: int) -> None:
        """A tile is there."""
        self._tiles_done += 1
        self._steps[index] = self._steps_each
        self.report("denoise")

    def report(self, stage: str) -> None:
        """Tells how far the request is, by the stage that it is in."""
        total = self._steps_each * len(self._steps)
        self._on_progress(
            Progress(
                stage=stage,
                tiles_done=self._tiles_done,
                tiles_total=len(self._steps),
                steps_done=sum(self._steps),
                steps_total=total,
            )
        )


class Clock:
    """Seconds spent in each stage, by name."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.laps_s: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """A stage has ended."""
        now = time.monotonic()
        self.laps_s[name] = now - self._last
        self._last = now
