from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.cli.exits import UsageError
from serve_app.cli.journal import FILE, MOST_BYTES, MOST_PICTURES, Journal, divided

SERVER = "http://tessera"


def test_what_was_noted_is_there_for_the_same_command(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "out", "one", SERVER)
    assert journal.chunks == []
    journal.add("key", [0, 2]).job = "job_1"
    journal.add("another", [1])
    journal.save()
    again = Journal.open(tmp_path / "out", "one", SERVER)
    assert again == journal
    assert Journal.open(tmp_path / "out", "two", SERVER).chunks == []


def test_the_file_goes_with_the_last_command(tmp_path: Path) -> None:
    journals = [Journal.open(tmp_path, digest, SERVER) for digest in ("one", "two")]
    for journal in journals:
        journal.add("key", [0])
        journal.save()
    journals[0].remove()
    assert Journal.open(tmp_path, "two", SERVER).chunks == journals[1].chunks
    journals[1].remove()
    journals[1].remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"version": 2, "commands": {}}',
        '{"version": 1, "commands": []}',
        '{"version": 1, "commands": {"one": {"chunks": [{"job": "x"}]}}}',
        '{"version": 1, "commands": {"one": {}}}',
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError, match=FILE):
        Journal.open(tmp_path, "one", SERVER)


def test_jobs_are_bounded_in_pictures_and_bytes() -> None:
    small = [(place, 1) for place in range(2 * MOST_PICTURES + 1)]
    assert [len(group) for group in divided(small)] == [MOST_PICTURES, MOST_PICTURES, 1]
    large = [(0, MOST_BYTES + 1), (1, 1), (2, MOST_BYTES), (3, 0)]
    assert list(divided(large)) == [[0], [1], [2, 3]]
    assert list(divided([])) == []
