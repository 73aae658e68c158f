"""How a followed job is shown: a table that is drawn anew, plain lines, or events as JSON lines.

It refuses to know how events come, and what is done with results.
"""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from serve_app.cli.board import Board, Row
from serve_app.client import JobEvent

_EVERY_S = 0.1
_BAR, _NAME = 20, 32


class View(Protocol):
    """What shows a board; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, job_id: str, event: JobEvent | None) -> None:
        """Shows what has changed: an event, or None for a job as it stood first."""
        ...

    def say(self, line: str, file: TextIO) -> None:
        """Writes a line of somebody else's."""
        ...


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def show(self, job_id: str, event: JobEvent | None) -> None:
        """See `View`."""

    def say(self, line: str, file: TextIO) -> None:
        """See `View`."""
        print(line, file=file, flush=True)


class Lines(Silent):
    """Plain lines, for what is no terminal."""

    def __init__(self, board: Board, file: TextIO) -> None:
        self._board = board
        self._file = file

    def show(self, job_id: str, event: JobEvent | None) -> None:
        """See `View`."""
        if event is None or event.kind == "job.finished":
            status = "" if event is None else f" {event.data['status']}:"
            print(f"{job_id}:{status} {totals(self._board)}", file=self._file, flush=True)
        elif event.kind.startswith("item.") and event.kind not in ("item.progress", "item.preview"):
            name = plain(self._board.name(job_id, event.data["number"]))
            reason = (event.data.get("error") or {}).get("detail")
            told = f"{name} {event.kind.removeprefix('item.')}"
            told += f": {plain(reason)}" if reason else ""
            print(f"{job_id}: {told}", file=self._file, flush=True)


class JsonLines(Silent):
    """Events as they came, a JSON object on each line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def show(self, job_id: str, event: JobEvent | None) -> None:
        """See `View`."""
        if event is not None:
            told = {"sequence": event.sequence, "event": event.kind, **event.data}
            print(json.dumps(told), file=self._file, flush=True)


class Table(Silent):
    """Pictures at work, totals and the time that is left, drawn anew in place.

    Args:
        board: What is shown.
        file: A terminal.
        size: Of it, columns and lines; None asks it.
        clock: Seconds; for tests.
    """

    def __init__(
        self,
        board: Board,
        file: TextIO,
        size: tuple[int, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._file = file
        self._size = size
        self._clock = clock
        self._drawn = 0
        self._drawn_at = -_EVERY_S

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the totals standing."""
        self._clear()
        if self._board.total:
            print(totals(self._board), file=self._file, flush=True)

    def show(self, job_id: str, event: JobEvent | None) -> None:
        """See `View`."""
        if self._clock() - self._drawn_at >= _EVERY_S:
            self._draw()

    def say(self, line: str, file: TextIO) -> None:
        """See `View`."""
        self._clear()
        print(line, file=file, flush=True)
        self._draw()

    def _clear(self) -> None:
        if self._drawn:
            self._file.write(f"\x1b[{self._drawn}F\x1b[J")
            self._file.flush()
        self._drawn = 0

    def _draw(self) -> None:
        if not self._board.total:
            return
        columns, lines = self._size or _size_of(self._file)
        rows = [_row(row) for row in self._board.running.values()]
        room = max(0, lines - 2)
        if len(rows) > room:
            rows = [*rows[: max(0, room - 1)], f"and {len(rows) - max(0, room - 1)} more"][:room]
        drawn = [cut(line, columns - 1) for line in [*rows, totals(self._board)]]
        self._clear()
        self._file.write("".join(f"{line}\n" for line in drawn))
        self._file.flush()
        self._drawn, self._drawn_at = len(drawn), self._clock()


def view_of(board: Board, file: TextIO, *, as_json: bool) -> View:
    """A view for where output goes."""
    if as_json:
        return JsonLines(sys.stdout)
    return Table(board, file) if file.isatty() else Lines(board, file)


def totals(board: Board) -> str:
    """One line on all pictures."""
    counts = board.counts
    told = [f"{counts['succeeded']} of {board.total} done"]
    words = {
        "failed": "failed",
        "cancelled": "cancelled",
        "running": "running",
        "queued": "waiting",
    }
    told += [f"{counts[status]} {word}" for status, word in words.items() if counts[status]]
    left_s = board.left_s() if board.ended < board.total else None
    return ", ".join(told) + ("" if left_s is None else f"; {spoken(left_s)} left")


def spoken(seconds: float) -> str:
    """A duration as people read it: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plain(text: str) -> str:
    """A text from elsewhere without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def cut(text: str, columns: int) -> str:
    """The beginning of a text that fits some columns; wide letters take two."""
    used, kept = 0, ""
    for letter in text:
        used += _width(letter)
        if used > columns:
            break
        kept += letter
    return kept


def _row(row: Row) -> str:
    name = cut(plain(row.name), _NAME)
    name += " " * (_NAME - sum(map(_width, name)))
    if not row.tiles_total:
        return f"{name} [{'':-<{_BAR}}]"
    filled = _BAR * row.tiles_done // row.tiles_total
    return (
        f"{name} [{'':#<{filled}}{'':-<{_BAR - filled}}] {row.tiles_done}/{row.tiles_total} tiles"
    )


def _width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _size_of(file: TextIO) -> tuple[int, int]:
    try:
        found = os.get_terminal_size(file.fileno())
    except (OSError, ValueError):
        return 80, 24
    return found.columns or 80, found.lines or 24
