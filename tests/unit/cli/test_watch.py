"""What a person sees of a job: the board, and the three views of it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from serve_app.cli.board import Board
from serve_app.cli.watch import JsonLines, Lines, Table, cut, plain, spoken, totals, view_of
from serve_app.client import JobEvent

JOB = "job_1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Screen(io.StringIO):
    """A terminal that obeys what the table writes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def write(self, text: str) -> int:
        if text.startswith("\x1b["):
            count, _, rest = text[2:].partition("F")
            del self.lines[-int(count) :]
            assert rest == "\x1b[J"
        else:
            self.lines += text.splitlines() if text != "\n" else []
        return len(text)

    def isatty(self) -> bool:
        return True


def item(number: int, status: str = "queued", **facts: Any) -> dict[str, Any]:
    told = {"number": number, "name": f"{number}.png", "status": status}
    return told | {"tiles_done": 0, "tiles_total": 0} | facts


def event(sequence: int, kind: str, number: int = 0, **data: Any) -> JobEvent:
    return JobEvent(sequence, f"item.{kind}", {"number": number, "name": f"{number}.png", **data})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    found = Board(clock)
    found.add({"id": JOB, "last_event": 5}, [item(number) for number in range(4)])
    return found


class TestBoard:
    def test_it_begins_as_the_job_stands(self) -> None:
        board = Board()
        running = item(1, "running", tiles_done=2, tiles_total=8)
        board.add({"id": JOB, "last_event": 5}, [item(0, "succeeded"), running, item(2, "failed")])
        assert (board.total, board.ended) == (3, 2)
        (row,) = board.running.values()
        assert (row.name, row.tiles_done, row.tiles_total) == ("1.png", 2, 8)

    def test_events_move_pictures(self, board: Board) -> None:
        board.take(JOB, event(6, "started"))
        board.take(JOB, event(7, "progress", tiles_done=1, tiles_total=4))
        assert board.counts["running"] == 1
        assert [row.tiles_done for row in board.running.values()] == [1]
        board.take(JOB, event(8, "failed"))
        board.take(JOB, event(9, "cancelled", 1))
        board.take(JOB, event(10, "succeeded", 2))
        assert (board.ended, board.running) == (3, {})
        board.take(JOB, event(11, "retried"))
        assert +board.counts == {"queued": 2, "succeeded": 1, "cancelled": 1}

    def test_what_the_snapshot_has_is_passed_over(self, board: Board) -> None:
        board.take(JOB, event(5, "failed"))
        board.take(JOB, event(6, "preview"))
        board.take(JOB, JobEvent(7, "job.finished", {"status": "succeeded"}))
        assert +board.counts == {"queued": 4}

    def test_the_time_left_follows_the_pace(self, board: Board, clock: Clock) -> None:
        assert board.left_s() is None
        board.take(JOB, event(6, "progress", tiles_done=0, tiles_total=4, eta_s=99.0))
        assert board.left_s() == 99  # the server's word
        clock.now = 10
        board.take(JOB, event(7, "progress", tiles_done=2, tiles_total=4, eta_s=99.0))
        assert board.left_s() == 70  # half a picture in 10 s, three and a half are left
        board.take(JOB, event(8, "succeeded"))
        assert board.left_s() == 30

    def test_several_jobs_are_one_board(self, board: Board) -> None:
        board.add({"id": "job_2", "last_event": 1}, [item(0, "succeeded")])
        board.take("job_2", event(2, "failed"))
        assert (board.total, board.counts["failed"], board.counts["queued"]) == (5, 1, 4)


class TestTable:
    def test_rows_for_what_runs_and_one_for_all(self, board: Board, clock: Clock) -> None:
        screen = Screen()
        with Table(board, screen, (80, 24), clock) as table:
            for number in range(2):
                board.take(JOB, event(6 + number, "started", number))
            board.take(JOB, event(8, "progress", 1, tiles_done=3, tiles_total=4))
            table.show(JOB, None)
            assert screen.lines == [
                f"0.png{' ' * 27} [--------------------]",
                f"1.png{' ' * 27} [###############-----] 3/4 tiles",
                "0 of 4 done, 2 running, 2 waiting",
            ]
            table.say("a line", screen)
            assert screen.lines[0] == "a line"
            assert len(screen.lines) == 4
            for number in range(2):
                board.take(JOB, event(9 + number, "succeeded", number))
            table.show(JOB, None)  # too soon to draw again
            assert len(screen.lines) == 4
            clock.now = 1
            table.show(JOB, None)
            assert screen.lines == ["a line", "2 of 4 done, 2 waiting; 1 s left"]
        assert screen.lines == ["a line", "2 of 4 done, 2 waiting; 1 s left"]

    def test_it_fits_the_terminal(self, board: Board, clock: Clock) -> None:
        for number in range(4):
            board.take(JOB, event(6 + number, "started", number))
        screen = Screen()
        Table(board, screen, (30, 4), clock).show(JOB, None)
        assert screen.lines[1:] == ["and 3 more", "0 of 4 done, 4 running"]
        assert max(map(len, screen.lines)) < 30


def test_plain_lines(board: Board) -> None:
    file = io.StringIO()
    view = view_of(board, file, as_json=False)
    assert isinstance(view, Lines)
    view.show(JOB, None)
    error = {"detail": "It ends\x1b[2J too early."}
    for told in (
        event(6, "started"),
        event(7, "progress", tiles_done=1, tiles_total=2),
        event(8, "preview"),
        event(9, "failed", error=error),
        JobEvent(10, "job.finished", {"status": "failed"}),
    ):
        board.take(JOB, told)
        view.show(JOB, told)
    assert file.getvalue().splitlines() == [
        "job_1: 0 of 4 done, 4 waiting",
        "job_1: 0.png started",
        "job_1: 0.png failed: It ends?[2J too early.",
        "job_1: failed: 0 of 4 done, 1 failed, 3 waiting",
    ]


def test_json_lines() -> None:
    file = io.StringIO()
    JsonLines(file).show(JOB, None)
    JsonLines(file).show(JOB, event(6, "started", job_id=JOB))
    told = {"sequence": 6, "event": "item.started", "number": 0, "name": "0.png", "job_id": JOB}
    assert json.loads(file.getvalue()) == told


def test_a_terminal_gets_a_table(board: Board) -> None:
    assert isinstance(view_of(board, Screen(), as_json=False), Table)
    assert isinstance(view_of(board, Screen(), as_json=True), JsonLines)


@pytest.mark.parametrize(
    ("seconds", "told"), [(-1, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, told: str) -> None:
    assert spoken(seconds) == told


def test_texts_from_elsewhere_fit_and_give_no_orders() -> None:
    assert plain("a\x1b[2J\x9b\u202eb") == "a?[2J??b"
    assert (cut("abc", 2), cut("写真", 3), cut("写真", 4), cut("e\u0301e", 1)) == (
        "ab",
        "写",
        "写真",
        "e\u0301",
    )


def test_totals(board: Board) -> None:
    assert totals(board) == "0 of 4 done, 4 waiting"
