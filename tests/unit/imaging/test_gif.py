from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from serve_app.imaging.gif import read_gif_blocks
from serve_app.imaging.shots import Disposal
from tests.unit.imaging.moving import DURATIONS_MS, STORY, Part, gif, letters, rgba

WHOLE = Part(0, 0, " ".join(["wwwwww"] * 5))
COLOURED = Part(0, 0, " ".join(["rrrrrr"] * 5))


def test_each_frame_is_a_file_of_its_own():
    shots = read_gif_blocks(gif(STORY)).shots
    assert [letters(rgba(shot.alone())) for shot in shots] == [part.rows for part in STORY]
    assert [(shot.left, shot.top) for shot in shots] == [(p.left, p.top) for p in STORY]
    assert tuple(shot.duration_ms for shot in shots) == DURATIONS_MS
    keep, clear, previous = Disposal.KEEP, Disposal.CLEAR, Disposal.PREVIOUS
    assert [shot.disposal for shot in shots] == [keep, clear, previous, keep, clear]


@pytest.mark.parametrize(("loop", "plays"), [(None, 1), (0, 0), (1, 2), (65535, 65536)])
def test_it_plays_once_more_than_it_loops(loop, plays):
    assert read_gif_blocks(gif(STORY, loop=loop)).plays == plays


@pytest.mark.parametrize(
    ("parts", "transparent"),
    [
        ([COLOURED, COLOURED], False),
        ([COLOURED, Part(1, 1, "gg gg")], False),
        ([Part(0, 0, "gg gg"), COLOURED], True),  # the rest of the first is bare
        ([COLOURED, Part(1, 1, "g.")], False),  # what was there shows through
        ([Part(0, 0, " ".join(["rrrrr."] * 5)), COLOURED], True),
        ([COLOURED, Part(1, 1, "gg", 1), Part(1, 1, "b")], True),  # what was cleared is bare
        ([replace(COLOURED, disposal=2), Part(1, 1, "gg")], True),  # what was taken back, too
        ([replace(COLOURED, disposal=2), replace(WHOLE, disposal=2), WHOLE], False),
        ([replace(COLOURED, disposal=2), WHOLE, Part(1, 1, "gg")], False),
    ],
)
def test_a_canvas_that_shows_bare_places_is_transparent(parts, transparent):
    assert read_gif_blocks(gif(parts)).transparent is transparent


def test_gray_is_told_by_the_colours():
    coloured = gif([WHOLE])
    assert not read_gif_blocks(coloured).gray
    gray = coloured[:13] + bytes(v for v in range(8) for _ in "rgb") + coloured[13 + 24 :]
    assert read_gif_blocks(gray).gray


def test_a_missing_trailer_and_padding_are_passed_over():
    data = gif(STORY)
    assert len(read_gif_blocks(data[:-1]).shots) == 5
    assert len(read_gif_blocks(data[:-1] + b"\0\0;").shots) == 5


@pytest.mark.parametrize("cut", [4, 12, 20])
def test_a_file_that_ends_within_a_frame_does_not_count(cut):
    with pytest.raises((IndexError, struct.error)):
        read_gif_blocks(gif(STORY)[:-cut])


def test_an_unknown_block_is_an_error():
    with pytest.raises(ValueError, match="unknown kind"):
        read_gif_blocks(gif(STORY)[:-1] + b"\x55\x55;")


def test_an_empty_frame_is_an_error():
    data = gif([WHOLE])
    at = data.index(struct.pack("<BHHHH", 0x2C, 0, 0, 6, 5))
    with pytest.raises(ValueError, match="empty"):
        read_gif_blocks(data[: at + 5] + bytes(4) + data[at + 9 :])
