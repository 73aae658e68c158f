"""Decodes in a process of its own, so that a malicious file costs one answer and never the service.

The child knows five things: `codec.decode`, `split.split`, `convert.to_profile`, `xmp.written_packet` and
`names.profile_name`. It has little to lose: an address space with a limit, no environment, few calls of the
system (`sandbox`), and a time after which it is killed. It starts once and stays warm; who finds it dead, or
kills it, starts another with the next errand. A picture comes back in memory that both map. There are two, so
that one file that takes all the time it may holds up nobody else. This module refuses to know formats and
decoders, and what is asked for (`errands`).
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from serve_app.errors import Busy, RequestError
from serve_app.imaging import errands
from serve_app.imaging.codec import Picture
from serve_app.imaging.errands import Errand
from serve_app.imaging.frames import Frames
from serve_app.imaging.inspect import FIELD
from serve_app.imaging.wire import Message, SharedMemory, receive, send
from serve_app.levels import Levels
from serve_app.settings import ImageLimits

_CHILD = (sys.executable, "-m", "serve_app.imaging.child")
_START_S = 60.0  # what a busy machine may take to import the decoders
_AT_ONCE = 2
_RETRY_AFTER_S = 5.0
_INHERITED = ("PATH", "LD_LIBRARY_PATH")
# One thread decodes, so memory follows from the picture alone; each arena of malloc takes 64 MB of addresses.
_FIXED = dict.fromkeys(
    ("VIPS_CONCURRENCY", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1"
) | {"VIPS_DISC_THRESHOLD": "1000g"}  # libvips would put what is over 100 MB on the disk

log = logging.getLogger(__name__)

T = TypeVar("T")


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
        return self.run(errands.picture(data, limits, field))

    def run(self, errand: Errand[T]) -> T:
        """Has something done; raises what the errand says, or Busy where no child can be had."""
        with self._turn:
            try:
                line = self._started(errand.limits.decode_memory_bytes)
                memories = _memories(errand.given)
            except OSError as error:
                raise _short(error) from error
            answered = False
            try:
                found = errand.read(_ask(line, memories, errand), memories[1])
                answered = True
                return found
            except RequestError:
                answered = True
                raise
            except TimeoutError:
                raise errand.too_slow from None
            except (OSError, EOFError, ValueError):
                raise errand.died from None
            finally:
                for memory in memories:
                    memory.close()
                if not answered:  # whatever it still says would be taken for the next answer
                    self._stop()

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
        try:
            greeting, _ = receive(self._line, within_s=_START_S)
        except (OSError, EOFError, ValueError) as error:
            self._stop()
            raise RuntimeError("the decoder's process does not start") from error
        facts = {"pid": self.pid, "confined": greeting.get("confined") is True}
        log.info("decoder_started", extra={"action": "decoder_started", **facts})
        return self._line

    def _stop(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._line = self._process = None


class DecodeWorkers:
    """Some workers, of which a free one is used; another starts only when all before it are at work.

    Args:
        workers: The last of them is the first to be used.
    """

    def __init__(self, workers: Sequence[DecodeWorker]) -> None:
        self._workers = workers
        self._free: queue.LifoQueue[DecodeWorker] = queue.LifoQueue()
        for worker in workers:
            self._free.put(worker)

    def run(self, errand: Errand[T]) -> T:
        """See `DecodeWorker.run`; Busy, too, where none comes free in the time that one may take."""
        try:
            worker = self._free.get(timeout=errand.limits.decode_timeout_s)
        except queue.Empty:
            raise Busy("all decoders are at work", retry_after_s=_RETRY_AFTER_S) from None
        try:
            return worker.run(errand)
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """Ends all children."""
        for worker in self._workers:
            worker.close()


def decode_contained(data: bytes, limits: ImageLimits, field: str = FIELD) -> Picture:
    """Decodes a file as `codec.decode` does, in one of this process's decoder processes.

    Args:
        data: The whole file.
        limits: What an upload may weigh, and what decoding it may take in memory and time.
        field: Its name in what errors say.

    Raises:
        InvalidParameter: no data at all.
        UnsupportedImage: not a format that is read.
        TooLarge: over a limit; also one on memory or time.
        BrokenImage: the file does not decode whole, or the decoder died of it.
        Busy: no decoder came free in the time that one may take.
    """
    return _workers.run(errands.picture(data, limits, field))


def split_contained(data: bytes, limits: ImageLimits, count: int) -> Frames:
    """Splits a moving picture of `count` frames as `split.split` does, where `decode_contained` decodes.

    The limits on time and memory are for all frames together. It raises what `decode_contained` raises.
    """
    return _workers.run(errands.frames(data, limits, FIELD, count))


def convert_contained(colour: Levels, icc: bytes, channels: int, limits: ImageLimits) -> Levels:
    """Converts colours as `convert.to_profile` does, where `decode_contained` decodes.

    Args:
        colour: (..., 3) sRGB.
        icc: The profile.
        channels: How many it has, 1 or 3.
        limits: What it may take in memory and time.

    Returns:
        (..., channels) in the profile; not to be written to.

    Raises:
        InvalidParameter: the profile cannot be written to, takes too long, or the converter died of it.
        Busy: no converter came free in the time that one may take.
    """
    return _workers.run(errands.rows(colour, icc, channels, limits))


def write_packet_contained(
    source: bytes, facts: Mapping[str, Any], limits: ImageLimits
) -> bytes | None:
    """Makes a result's XMP as `xmp.written_packet` does, where `decode_contained` decodes.

    Args:
        source: The source's packet.
        facts: The further arguments, by name.
        limits: What it may take in memory and time.

    Raises:
        InvalidParameter: it takes too long, or its reader died of it.
        Busy: no process came free in the time that one may take.
    """
    return _workers.run(errands.packet(source, facts, limits))


def profile_name_contained(data: bytes, limits: ImageLimits, field: str = FIELD) -> str | None:
    """Asks for the name of a file's profile as `names.profile_name` does, where `decode_contained` decodes.

    It raises what `decode_contained` raises.
    """
    return _workers.run(errands.profile_name(data, limits, field))


def _memories(given: Sequence[bytes]) -> tuple[SharedMemory, SharedMemory]:
    """What goes to the child: what it is given, and the place for what it makes."""
    file = SharedMemory.create()
    try:
        for part in given:
            file.append(part)
        return file, SharedMemory.create()
    except OSError:
        file.close()
        raise


def _ask(
    line: socket.socket, memories: tuple[SharedMemory, SharedMemory], errand: Errand[T]
) -> Message:
    within_s = errand.limits.decode_timeout_s
    line.settimeout(within_s)
    send(line, errand.request | {"limits": errand.limits.model_dump()}, memories)
    message, _ = receive(line, within_s=within_s)
    return message


def _short(error: OSError) -> Busy:
    log.error("decoder_not_started", extra={"action": "decoder_not_started", "reason": str(error)})
    return Busy("no memory or process is left for a decoder", retry_after_s=_RETRY_AFTER_S)


_workers = DecodeWorkers([DecodeWorker() for _ in range(_AT_ONCE)])
atexit.register(_workers.close)
