"""A moving picture as what it is made of: its frames as files of their own, and when each is shown.

It is also how the decoder's process says so (`wire`). This module refuses to know decoders and encoders.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.imaging.inspect import Header
from serve_app.imaging.wire import Message, SharedMemory, error_of, whole_number

MOST_DURATION_MS = 2**24 - 1  # WebP's; four and a half hours
_SHOWN_AS_MS = 100
"""What viewers make of a duration of 0."""


@dataclass(frozen=True, slots=True)
class Frames:
    """A moving picture.

    Attributes:
        pictures: Those that differ, as files, or as references to files elsewhere.
        shown: For each frame, which of the pictures it shows.
        durations_ms: For each frame, how long it is shown, 1 to `MOST_DURATION_MS`.
        plays: How often all of it is shown; 0 is for ever.
        gray: Whether the pictures have one channel of colour.
    """

    pictures: Sequence[Any]
    shown: tuple[int, ...]
    durations_ms: tuple[int, ...]
    plays: int
    gray: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: how long it is shown; a file, unless an earlier frame showed the same; then which one."""

    duration_ms: int
    picture: bytes | None
    same_as: int


def duration_ms(told_ms: int) -> int:
    """How long a frame of this duration is shown: viewers do not believe 0."""
    return min(told_ms, MOST_DURATION_MS) if told_ms > 0 else _SHOWN_AS_MS


def frames_message(found: Iterable[Frame], plays: int, gray: bool, memory: SharedMemory) -> Message:
    """Describes frames, whose pictures are appended to `memory` as they come."""
    lengths, shown, durations = list[int](), list[int](), list[int]()
    for frame in found:
        durations.append(frame.duration_ms)
        if frame.picture is None:
            shown.append(frame.same_as)
            continue
        shown.append(len(lengths))
        lengths.append(len(frame.picture))
        memory.append(frame.picture)
    return {
        "lengths": lengths,
        "shown": shown,
        "durations_ms": durations,
        "plays": plays,
        "gray": gray,
    }


def read_frames(message: Message, memory: SharedMemory, header: Header, *, count: int) -> Frames:
    """Makes frames of what the child said, which may be a stranger's words.

    Args:
        message: From `frames_message` or `error_message`.
        memory: Where the pictures are.
        header: What the file says of itself.
        count: Of frames, by the file.

    Raises:
        RequestError: the one that the child raised.
        ValueError: the message makes no sense.
    """
    if "error" in message:
        raise error_of(message)
    try:
        lengths = [whole_number(length) for length in message["lengths"]]
        shown = tuple(whole_number(at) for at in message["shown"])
        durations = tuple(duration_ms(whole_number(told)) for told in message["durations_ms"])
        plays, gray = whole_number(message["plays"]), bool(message["gray"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"no answer: {error}") from None
    if not len(shown) == len(durations) == count or not 0 <= plays <= 2**32:
        raise ValueError("an answer for another picture")
    if min(shown) < 0 or max(shown) >= len(lengths) or min(lengths) < 0:
        raise ValueError("an answer that shows what is not there")
    if sum(lengths) > os.fstat(memory.descriptor).st_size:
        raise ValueError("an answer that is longer than its memory")
    pictures = [memory.take(length) for length in lengths]
    sides = {struct.unpack_from(">II", picture, 16) for picture in pictures if len(picture) > 24}
    if len(sides) != 1 or sorted(*sides) != sorted((header.width, header.height)):
        raise ValueError("frames of another size")
    return Frames(pictures, shown, durations, plays, gray)
