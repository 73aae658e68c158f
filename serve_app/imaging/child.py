"""The decoder's process: reads requests from its socket and answers each, until the other side ends.

Run as `python -m serve_app.imaging.child SOCKET MEMORY_BYTES`. Its limits are its own doing, so that the
process that starts it, which has threads, need run nothing between fork and exec. This module refuses to
know who asks.
"""

from __future__ import annotations

import resource
import signal
import socket
import sys

from serve_app.errors import TesseraError
from serve_app.imaging.codec import decode
from serve_app.imaging.wire import READY, error_message, picture_message, receive, send
from serve_app.settings import ImageLimits

_ORPHAN_S = 5.0  # how long it outlives the limit on time where nobody is left to kill it


def serve(line: socket.socket) -> None:
    """Answers requests until the other side ends."""
    send(line, READY)
    while True:
        try:
            request, (file, memory) = receive(line, memories=2)
        except (EOFError, OSError):
            return
        limits = ImageLimits(**request["limits"])
        signal.setitimer(signal.ITIMER_REAL, limits.decode_timeout_s + _ORPHAN_S)
        try:
            picture = decode(file.whole(), limits, request["field"], memory.allocate)
            answer = picture_message(picture, memory)
            del picture
        except TesseraError as error:
            answer = error_message(error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        file.close()
        memory.close()
        send(line, answer)


def main() -> None:
    """Limits this process, then serves."""
    descriptor, memory_bytes = (int(argument) for argument in sys.argv[1:3])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that will end this one
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with socket.socket(fileno=descriptor) as line:
        serve(line)


if __name__ == "__main__":
    main()
