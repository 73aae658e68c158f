"""What is said between `worker` and `child`: one line of JSON each way, and pictures in memory that both map.

Plain JSON because the child may be in a stranger's hands: whatever it says makes a picture within its own
memory or a `ValueError`. This module refuses to know processes, limits and formats.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
import tempfile
import time
from typing import Any

import numpy as np

from serve_app.errors import (
    BrokenImage,
    InvalidParameter,
    RequestError,
    TesseraError,
    TooLarge,
    UnsupportedImage,
)
from serve_app.imaging.codec import Picture
from serve_app.imaging.traits import Traits
from serve_app.levels import Levels

READY = {"ready": True}
PICTURE, FRAMES, ROWS, PACKET, NAME = "picture", "frames", "rows", "packet", "name"
"""What may be asked for: a file's picture, its frames, rows in a profile, a result's XMP, a profile's name."""
_LONGEST_LINE_BYTES = 65536
_LEVEL_BYTES = 2
_BLOCKS = ("icc", "exif", "xmp")
_ERRORS = {kind.code: kind for kind in (BrokenImage, InvalidParameter, TooLarge, UnsupportedImage)}

Message = dict[str, Any]


class SharedMemory:
    """Memory without a name, by its descriptor; gone when nobody maps it and all descriptors are closed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._end = 0

    @classmethod
    def create(cls, content: bytes = b"") -> SharedMemory:
        """Makes a new one that holds `content`, and that nobody can make smaller again.

        To read what was mapped and then cut off ends a process (SIGBUS), so a child must not be able to cut.

        Raises:
            OSError: no memory or no descriptor is left.
        """
        if hasattr(os, "memfd_create"):
            memory = cls(os.memfd_create("picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(memory.descriptor, fcntl.F_ADD_SEALS, seals)
        else:  # not Linux: a file that has already been deleted does the same
            with tempfile.TemporaryFile() as file:
                memory = cls(os.dup(file.fileno()))
        try:
            memory.append(content)
        except OSError:
            memory.close()
            raise
        return memory

    def append(self, content: bytes) -> None:
        """Puts bytes behind what is there; see `allocate`."""
        os.lseek(self.descriptor, self._end, os.SEEK_SET)
        left = memoryview(content)
        while left:
            left = left[os.write(self.descriptor, left) :]
        self._end += len(content)

    def allocate(self, shape: tuple[int, ...]) -> Levels:
        """A mapped array behind what is there. Both sides call for the same arrays in the same order."""
        count = int(np.prod(shape, dtype=np.int64))
        self._end += count * _LEVEL_BYTES
        os.ftruncate(self.descriptor, max(self._end, os.fstat(self.descriptor).st_size))
        return self._map(count, self._end - count * _LEVEL_BYTES).reshape(shape)

    def _map(self, count: int, at: int) -> Levels:
        start = at - at % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(self.descriptor, self._end - start, offset=start)
        return np.frombuffer(mapped, np.uint16, count, at - start)

    def take(self, size_bytes: int) -> bytes:
        """The next bytes behind what was asked for so far."""
        self._end += size_bytes
        return os.pread(self.descriptor, size_bytes, self._end - size_bytes)

    def whole(self) -> bytes:
        """All that it holds."""
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)

    def close(self) -> None:
        """Closes the descriptor; arrays stay."""
        os.close(self.descriptor)


def send(line: socket.socket, message: Message, memories: tuple[SharedMemory, ...] = ()) -> None:
    """Says one message; memories travel with it."""
    text = json.dumps(message).encode() + b"\n"
    sent = socket.send_fds(line, [text], [memory.descriptor for memory in memories])
    line.sendall(text[sent:])


def receive(
    line: socket.socket, memories: int = 0, within_s: float | None = None
) -> tuple[Message, list[SharedMemory]]:
    """Waits for one message.

    Args:
        line: Where it comes from.
        memories: How many travel with it.
        within_s: Seconds for the whole of it, however slowly it drips; None is for ever.

    Raises:
        TimeoutError: it is not whole in time.
        EOFError: the other side has ended.
        ValueError: what it said is no message.
    """
    end = None if within_s is None else time.monotonic() + within_s
    line.settimeout(within_s)
    text, found, _, _ = socket.recv_fds(line, _LONGEST_LINE_BYTES, memories)
    while not text.endswith(b"\n"):
        if end is not None:
            line.settimeout(max(end - time.monotonic(), 1e-3))
        more = line.recv(_LONGEST_LINE_BYTES) if text else b""
        if not more:
            raise EOFError
        text += more
        if len(text) > _LONGEST_LINE_BYTES:
            raise ValueError("a message without an end")
    try:
        message = json.loads(text)
    except RecursionError:
        raise ValueError("a message that is too deep") from None
    if not isinstance(message, dict):
        raise ValueError("no message")
    return message, [SharedMemory(descriptor) for descriptor in found]


def picture_message(picture: Picture, memory: SharedMemory) -> Message:
    """Describes a picture whose arrays were allocated in `memory`, and appends the rest of it there."""
    traits = picture.traits
    blocks = [getattr(traits, name) for name in _BLOCKS]
    for block in blocks:
        memory.append(block or b"")
    return {
        "size": [picture.height, picture.width],
        "alpha": picture.alpha is not None,
        "gray": traits.gray,
        "bit_depth": traits.bit_depth,
        "blocks": [None if block is None else len(block) for block in blocks],
    }


def error_message(error: TesseraError) -> Message:
    """Describes one of our errors."""
    return {
        "error": error.code,
        "detail": error.detail,
        "field": error.field,
        "allowed": error.allowed,
    }


def read_answer(message: Message, memory: SharedMemory, pixels: int) -> Picture:
    """Makes a picture of what the child said.

    Args:
        message: From `picture_message` or `error_message`.
        memory: Where its arrays are.
        pixels: How many the picture must have, by its header.

    Raises:
        RequestError: the one that the child raised.
        ValueError: the message makes no sense.
    """
    if "error" in message:
        raise error_of(message)
    try:
        height, width = (whole_number(side) for side in message["size"])
        icc, exif, xmp = (
            None if size is None else whole_number(size) for size in message["blocks"]
        )
        has_alpha, gray = bool(message["alpha"]), bool(message["gray"])
        bit_depth = 16 if message["bit_depth"] == 16 else 8
    except (KeyError, TypeError) as error:
        raise ValueError(f"no answer: {error}") from None
    sizes = (icc, exif, xmp)
    told = height * width * (4 if has_alpha else 3) * _LEVEL_BYTES
    told += sum(size or 0 for size in sizes)
    if min(height, width) < 1 or height * width != pixels or min(size or 0 for size in sizes) < 0:
        raise ValueError("an answer for another picture")
    if os.fstat(memory.descriptor).st_size < told:
        raise ValueError("an answer that is longer than its memory")
    colour = memory.allocate((height, width, 3))
    alpha = memory.allocate((height, width)) if has_alpha else None
    blocks = [None if size is None else memory.take(size) for size in sizes]
    return Picture(colour, alpha, Traits(gray, bit_depth, *blocks))


def samples_message(samples: Levels, memory: SharedMemory) -> Message:
    """Describes samples, which are appended to `memory`."""
    memory.append(samples.tobytes())
    return {"samples": samples.size}


def read_samples(message: Message, memory: SharedMemory, shape: tuple[int, ...]) -> Levels:
    """Takes what `samples_message` described; nobody else holds it then.

    Raises:
        ValueError: the message makes no sense, or the samples are not as many as the shape wants.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if whole_number(message.get("samples")) != count:
        raise ValueError("an answer of another length")
    found = memory.take(count * _LEVEL_BYTES)
    return np.frombuffer(found, np.uint16).reshape(shape)  # ValueError where the memory held less


def text_message(text: bytes | None, memory: SharedMemory) -> Message:
    """Describes a text, which is appended to `memory`."""
    memory.append(text or b"")
    return {"text": None if text is None else len(text)}


def read_text(message: Message, memory: SharedMemory, most_bytes: int) -> bytes | None:
    """Takes what `text_message` described; ValueError if it makes no sense, is no UTF-8, or is too long."""
    length = message.get("text", -1)
    if length is None:
        return None
    if not 0 < whole_number(length) <= most_bytes:
        raise ValueError("an answer of another length")
    found = memory.take(length)
    if len(found) != length or b"\0" in found:
        raise ValueError("an answer that is longer than its memory")
    return found.decode().encode()


def whole_number(number: object) -> int:
    """A number of a message; ValueError if it is anything else."""
    if type(number) is not int:  # True is one, and so is infinity until it is turned
        raise ValueError("a size that is no whole number")
    return number


def error_of(message: Message) -> RequestError:
    """Our error, of `error_message`; ValueError if it is none."""
    kind = _ERRORS.get(str(message["error"]), BrokenImage)
    facts = {key: message.get(key) for key in ("field", "allowed")}
    detail = message.get("detail")
    if not isinstance(detail, str) or any(not isinstance(f, str | None) for f in facts.values()):
        raise ValueError("an error that is none of ours")
    return kind(detail, **facts)
