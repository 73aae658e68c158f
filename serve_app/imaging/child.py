"""The decoder's process: reads requests from its socket and answers each, until the other side ends.

Run as `python -m serve_app.imaging.child SOCKET MEMORY_BYTES`. Its limits are its own doing, so that the
process that starts it, which has threads, need run nothing between fork and exec. This module refuses to
know who asks.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import sys
from pathlib import Path

import numpy as np

from serve_app.errors import InvalidParameter, TesseraError
from serve_app.imaging.codec import decode
from serve_app.imaging.convert import to_profile
from serve_app.imaging.names import profile_name
from serve_app.imaging.sandbox import enter
from serve_app.imaging.split import split
from serve_app.imaging.wire import (
    FRAMES,
    NAME,
    PACKET,
    READY,
    ROWS,
    Message,
    SharedMemory,
    error_message,
    picture_message,
    receive,
    samples_message,
    send,
    text_message,
)
from serve_app.imaging.xmp import written_packet
from serve_app.settings import ImageLimits

_ORPHAN_S = 5.0  # how long it outlives the limit on time where nobody is left to kill it
_DESCRIPTORS = 64  # it holds about ten
_ROWS_CPU_S = 5.0  # of the processor, for a megapixel at most; known profiles take 0.1 to 0.4


def serve(line: socket.socket, greeting: Message) -> None:
    """Greets, then answers requests until the other side ends."""
    send(line, greeting)
    while True:
        try:
            request, (file, memory) = receive(line, memories=2)
        except (EOFError, OSError):
            return
        limits = ImageLimits(**request["limits"])
        signal.setitimer(signal.ITIMER_REAL, limits.decode_timeout_s + _ORPHAN_S)
        try:
            answer = _answer(request, file.whole(), limits, memory)
        except TesseraError as error:
            answer = error_message(error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        file.close()
        memory.close()
        send(line, answer)


def _answer(request: Message, given: bytes, limits: ImageLimits, memory: SharedMemory) -> Message:
    if request["wanted"] == ROWS:
        return _rows(given, request["pixels"], request["channels"], memory)
    if request["wanted"] == PACKET:
        end = request["facts_bytes"]
        facts = json.loads(given[:end])
        return text_message(written_packet(given[end:], **facts), memory)
    if request["wanted"] == NAME:
        name = profile_name(given)
        return text_message(name.encode("utf-8", "replace") if name else None, memory)
    if request["wanted"] == FRAMES:
        return split(given, limits, request["field"], memory)
    picture = decode(given, limits, request["field"], memory.allocate)
    return picture_message(picture, memory)


def _rows(given: bytes, pixels: int, channels: int, memory: SharedMemory) -> Message:
    """A profile is set up anew for each band, so one that takes its time takes it often: it has little."""
    colour = np.frombuffer(given, np.uint16, pixels * 3).reshape(1, pixels, 3)
    signal.setitimer(signal.ITIMER_PROF, _ROWS_CPU_S)  # its signal ends this process
    try:
        samples = to_profile(colour, given[colour.nbytes :], channels)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return samples_message(samples, memory)


def main() -> None:
    """Limits this process, then serves."""
    descriptor, memory_bytes = (int(argument) for argument in sys.argv[1:3])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that will end this one
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_bytes, memory_bytes))  # shared memory, too
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    with contextlib.suppress(OSError):  # where memory runs out, this process goes before any other
        Path("/proc/self/oom_score_adj").write_text("1000")
    with socket.socket(fileno=descriptor) as line:
        serve(line, {**READY, "confined": enter()})


if __name__ == "__main__":
    main()
