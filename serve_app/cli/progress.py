"""One progress bar over all pictures of a command, in denoising steps, with the time that is left.

Pictures that have not begun count as the mean of those that have, so that the estimate does not start
over with each. It refuses to know where the reports come from.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from serve_app.contracts import Progress


class ProgressBar:
    """A context manager around the bar.

    Args:
        pictures: Pictures in all.
        shown: True forces the bar, False leaves it out, None shows it on a terminal.
    """

    def __init__(self, pictures: int, shown: bool | None) -> None:
        self._pictures = pictures
        self._ended = 0
        self._reports: dict[Path, Progress] = {}
        disable = None if shown is None else not shown
        self._bar = tqdm(total=0, unit="step", file=sys.stderr, disable=disable, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def report(self, picture: Path, progress: Progress) -> None:
        """Takes a picture's newest report."""
        self._reports[picture] = progress
        self._draw()

    def end(self, picture: Path) -> None:
        """Counts a picture as ended, whatever became of it."""
        self._ended += 1
        if (last := self._reports.get(picture)) is not None:
            self._reports[picture] = last.model_copy(update={"steps_done": last.steps_total})
        self._draw()
        self._bar.refresh()

    def say(self, line: str, file: TextIO) -> None:
        """Writes a line without tearing the bar."""
        tqdm.write(line, file=file)

    def _draw(self) -> None:
        known = self._reports.values()
        total = sum(report.steps_total for report in known)
        begun = sum(report.steps_total > 0 for report in known)
        unknown = self._pictures - max(begun, self._ended)
        self._bar.total = total + (round(total / begun * unknown) if begun else 0)
        done = sum(report.steps_done for report in known)
        tiles = sum(report.tiles_done for report in known)
        self._bar.set_postfix_str(
            f"{tiles} tiles, {self._ended}/{self._pictures} pictures", refresh=False
        )
        self._bar.update(done - self._bar.n)
