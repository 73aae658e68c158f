"""This browser's jobs."""

from datetime import UTC, datetime

import pytest

from serve_app.ui.history import BATCH, MOST, PICTURE, added, choices, entries, entry_of, newest

AT = datetime(2026, 12, 1, 9, 30, tzinfo=UTC)


def test_the_newest_comes_first_and_old_ones_go():
    history: object = []
    for number in range(MOST + 5):
        history = added(history, f"job_{number}", PICTURE, "a.png", at=AT)
    assert len(entries(history)) == MOST
    assert entries(history)[0]["id"] == f"job_{MOST + 4}"


def test_each_kind_has_its_newest():
    history = added(added([], "job_1", BATCH, "b", at=AT), "job_2", PICTURE, "a", at=AT)
    assert newest(history, BATCH) == entry_of(history, "job_1")
    assert newest([], PICTURE) is None


def test_labels_tell_name_time_and_state():
    history = added([], "job_1", PICTURE, "a.png", at=AT)
    assert choices(history, {}) == [("a.png · 2026-12-01 09:30 UTC · gone", "job_1")]


@pytest.mark.parametrize("stored", [None, "x", 3, [1, {"id": 2}, {}]])
def test_whatever_was_stored_is_borne(stored: object):
    assert entries(stored) == []
