"""Decodes in a process of its own, so that a malicious file costs one answer and never the service.

The child knows one thing, `codec.decode`, and has little to lose: an address space with a limit, no
environment, and a time after which it is killed. It starts once and stays warm; who finds it dead, or kills it,
starts another with the next picture. The picture comes back in memory that both map. This module refuses to
know formats and decoders.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from serve_app.errors import BrokenImage, TooLarge
from serve_app.imaging.codec import Picture
from serve_app.imaging.inspect import FIELD, Header, inspect
from serve_app.imaging.wire import SharedMemory, read_answer, receive, send
from serve_app.settings import ImageLimits

_CHILD = (sys.executable, "-m", "serve_app.imaging.child")
_START_S = 60.0  # what a busy machine may take to import the decoders
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")
# One thread decodes, so memory follows from the picture alone; each arena of malloc takes 64 MB of addresses.
_FIXED = dict.fromkeys(
    ("VIPS_CONCURRENCY", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1"
)


class DecodeWorker:
    """One child process and its restarts; callers wait for each other.

    Args:
        command: Runs as the child, with its socket's descriptor and its limit in bytes as arguments.
    """

    def __init__(self, command: Sequence[str] = _CHILD) -> None:
        self._command = command
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._memory_bytes = 0

    @property
    def pid(self) -> int | None:
        """The child's process id, if one was started."""
        return None if self._process is None else self._process.pid

    def decode(self, data: bytes, limits: ImageLimits, field: str = FIELD) -> Picture:
        """See `decode_contained`."""
        header = inspect(data, limits, field)
        with self._turn:
            line = self._started(limits.decode_memory_bytes)
            file, memory = SharedMemory.create(data), SharedMemory.create()
            try:
                line.settimeout(limits.decode_timeout_s)
                request = {"limits": limits.model_dump(), "field": field}
                send(line, request, (file, memory))
                return read_answer(receive(line)[0], memory, header.height * header.width)
            except TimeoutError:
                self._stop()
                raise _too_slow(header, limits, field) from None
            except (OSError, EOFError, ValueError):
                self._stop()
                raise _died(header, limits, field) from None
            finally:
                file.close()
                memory.close()

    def close(self) -> None:
        """Ends the child; a later picture starts another."""
        with self._turn:
            self._stop()

    def _started(self, memory_bytes: int) -> socket.socket:
        alive = self._process is not None and self._process.poll() is None
        if self._line is not None and alive and self._memory_bytes == memory_bytes:
            return self._line
        self._stop()
        self._line, theirs = socket.socketpair()
        kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno()), str(memory_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**kept, **_FIXED, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._memory_bytes = memory_bytes
        self._line.settimeout(_START_S)
        try:
            receive(self._line)
        except (OSError, EOFError, ValueError) as error:
            self._stop()
            raise RuntimeError("the decoder's process does not start") from error
        return self._line

    def _stop(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._line = self._process = None


def decode_contained(data: bytes, limits: ImageLimits, field: str = FIELD) -> Picture:
    """Decodes a file as `codec.decode` does, in this process's one decoder process.

    Args:
        data: The whole file.
        limits: What an upload may weigh, and what decoding it may take in memory and time.
        field: Its name in what errors say.

    Raises:
        InvalidParameter: no data at all.
        UnsupportedImage: not a format that is read.
        TooLarge: over a limit; also one on memory or time.
        BrokenImage: the file does not decode whole, or the decoder died of it.
    """
    return _worker.decode(data, limits, field)


def _too_slow(header: Header, limits: ImageLimits, field: str) -> TooLarge:
    return TooLarge(
        f"{field}: decoding this {header.format.upper()} file took longer than the limit of"
        f" {limits.decode_timeout_s:g} s",
        field=field,
        allowed=f"a file that decodes within {limits.decode_timeout_s:g} s",
    )


def _died(header: Header, limits: ImageLimits, field: str) -> BrokenImage:
    return BrokenImage(
        f"{field}: the decoder died of this {header.format.upper()} file, or of its limit of"
        f" {limits.decode_memory_bytes} bytes",
        field=field,
        allowed="a whole file that decodes within the limit",
    )


_worker = DecodeWorker()
atexit.register(_worker.close)
