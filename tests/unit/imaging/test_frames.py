from __future__ import annotations

from typing import Any

import pytest

from serve_app.errors import BrokenImage, TooLarge
from serve_app.imaging.frames import (
    MOST_DURATION_MS,
    Frame,
    duration_ms,
    frames_message,
    read_frames,
)
from serve_app.imaging.inspect import inspect
from serve_app.imaging.wire import SharedMemory, error_message
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import png

ONE, OTHER = (png(3, 8, 0, [b"abc", bytes(3), value]) for value in (b"abc", b"xyz"))
HEADER = inspect(ONE, ImageLimits())


def told(change: dict[str, Any] | None = None, count: int = 3, *pictures: bytes):
    memory = SharedMemory.create()
    try:
        first, second = pictures or (ONE, OTHER)
        found = [Frame(30, first, 0), Frame(40, second, 1), Frame(50, None, 0)]
        message = frames_message(found, 2, True, memory) | (change or {})
        return read_frames(message, SharedMemory(memory.descriptor), HEADER, count=count)
    finally:
        memory.close()


def test_frames_arrive():
    found = told()
    assert list(found.pictures) == [ONE, OTHER]
    assert (found.shown, found.durations_ms) == ((0, 1, 0), (30, 40, 50))
    assert (found.plays, found.gray) == (2, True)


@pytest.mark.parametrize(
    "lie",
    [
        {"lengths": [len(ONE), 10**9]},
        {"lengths": [len(ONE), -1]},
        {"lengths": [len(ONE)]},
        {"lengths": []},
        {"lengths": None},
        {"shown": [0, 1, 2]},
        {"shown": [0, 1, -1]},
        {"shown": [0, 1]},
        {"durations_ms": [1, 2]},
        {"durations_ms": ["x", 1, 2]},
        {"plays": -1},
        {"plays": None},
    ],
    ids=str,
)
def test_a_lie_is_no_answer(lie):
    with pytest.raises(ValueError, match=r".+"):
        told(lie)


def test_another_count_or_another_size_is_no_answer():
    with pytest.raises(ValueError, match="another picture"):
        told(count=4)
    with pytest.raises(ValueError, match="another size"):
        told(None, 3, ONE, png(2, 8, 0, [b"ab", b"cd"]))
    with pytest.raises(ValueError, match="another size"):
        told(None, 3, b"", b"")


@pytest.mark.parametrize("kind", [TooLarge, BrokenImage])
def test_an_error_arrives_whole(kind):
    error = kind("image: no", field="image", allowed="less")
    with pytest.raises(kind, match="image: no") as caught:
        read_frames(error_message(error), SharedMemory(-1), HEADER, count=2)
    assert (caught.value.field, caught.value.allowed) == ("image", "less")


@pytest.mark.parametrize(
    ("told_ms", "shown_ms"),
    [(0, 100), (-5, 100), (1, 1), (2**24, MOST_DURATION_MS), (70, 70)],
)
def test_durations_stay_within_what_files_hold(told_ms, shown_ms):
    assert duration_ms(told_ms) == shown_ms
