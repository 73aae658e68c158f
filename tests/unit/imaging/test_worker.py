from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from serve_app.errors import BrokenImage, InvalidParameter, TooLarge, UnsupportedImage
from serve_app.imaging.codec import decode
from serve_app.imaging.worker import DecodeWorker, decode_contained
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import exif, noisy, png, saved, smooth

LIMITS = ImageLimits()
SMALL = saved(noisy(), "PNG")
# A child that greets, waits for a request, and then does what the test says.
_CHILD = """
import ctypes, os, socket, sys, time
line = socket.socket(fileno=int(sys.argv[1]))
line.sendall(b'{"ready": true}\\n')
socket.recv_fds(line, 65536, 2)
"""


@pytest.fixture(scope="module")
def worker():
    worker = DecodeWorker()
    yield worker
    worker.close()


def evil(does):
    return DecodeWorker([sys.executable, "-c", _CHILD + does])


def same(one, other):
    np.testing.assert_array_equal(one.colour, other.colour)
    assert one.traits == other.traits
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None:
        np.testing.assert_array_equal(one.alpha, other.alpha)


@pytest.mark.parametrize(
    "data",
    [
        SMALL,
        saved(smooth().convert("RGBA"), "PNG", exif=exif(6)),
        saved(smooth(37, 53), "JPEG", exif=b"Exif\0\0" + exif(3), xmp=b"<x/>"),
        png(2, 16, 0, [b"\x12\x34\x12\x35"]),
    ],
    ids=["png", "alpha turned", "metadata", "16 bit gray"],
)
def test_what_comes_back_is_what_decode_gives(worker, data):
    same(worker.decode(data, LIMITS), decode(data, LIMITS))


def test_one_process_serves_many_pictures(worker):
    worker.decode(SMALL, LIMITS)
    first = worker.pid
    worker.decode(SMALL, LIMITS)
    assert worker.pid == first


def test_a_picture_outlives_the_next_one_and_the_child():
    worker = DecodeWorker()
    picture = worker.decode(SMALL, LIMITS)
    worker.decode(saved(smooth(), "PNG"), LIMITS)
    worker.close()
    same(picture, decode(SMALL, LIMITS))
    picture.colour[0, 0] = 1  # the caller's own


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", InvalidParameter),
        (b"hello, no picture", UnsupportedImage),
        (SMALL[:200], BrokenImage),
        (saved(smooth(), "JPEG")[:400], BrokenImage),
    ],
)
def test_errors_arrive_whole(worker, data, kind):
    with pytest.raises(kind) as caught:
        worker.decode(data, LIMITS, "control_images.edges")
    assert caught.value.field == "control_images.edges"
    assert caught.value.detail.startswith("control_images.edges: ")
    assert caught.value.allowed
    same(worker.decode(SMALL, LIMITS), decode(SMALL, LIMITS))


@pytest.mark.parametrize(
    "does",
    [
        "os.abort()",
        "ctypes.string_at(0)",
        "sys.exit(0)",
        "line.sendall(b'no json at all\\n')",
        "line.sendall(b'[1, 2]\\n')",
        "line.sendall(b'{}\\n')",
        'line.sendall(b\'{"size": [48, 64], "alpha": false, "gray": false, "bit_depth": 8, "blocks": []}\\n\')',
        'line.sendall(b\'{"size": [1, 9], "alpha": false, "gray": false, "bit_depth": 8, "blocks": []}\\n\')',
        "line.sendall(b'x' * 100000)",
    ],
    ids=["abort", "segfault", "exit", "no json", "list", "empty", "no memory", "size", "endless"],
)
def test_a_decoder_that_dies_or_lies_costs_one_answer(does):
    worker = evil(does)
    with pytest.raises(BrokenImage, match="died of this PNG file") as caught:
        worker.decode(SMALL, LIMITS)
    assert caught.value.field == "image"
    assert worker.pid is None


def test_a_decoder_that_never_ends_is_killed():
    worker = evil("time.sleep(1000)")
    with pytest.raises(TooLarge, match=r"longer than the limit of 0\.2 s"):
        worker.decode(SMALL, ImageLimits(decode_timeout_s=0.2))
    assert worker.pid is None


def test_memory_is_bounded_and_the_next_picture_is_served():
    worker = DecodeWorker()
    limits = ImageLimits(decode_memory_bytes=2**29)
    wide = b"\0" * 8 * 8000
    with pytest.raises((TooLarge, BrokenImage), match="536870912 bytes"):
        worker.decode(png(8000, 16, 6, [wide] * 6000), limits)
    same(worker.decode(SMALL, limits), decode(SMALL, LIMITS))
    worker.close()


def test_a_child_that_was_killed_from_outside_is_replaced():
    worker = DecodeWorker()
    worker.decode(SMALL, LIMITS)
    first = psutil.Process(worker.pid)
    first.kill()
    first.wait()
    same(worker.decode(SMALL, LIMITS), decode(SMALL, LIMITS))
    assert worker.pid != first.pid
    worker.close()


def test_the_child_ends_with_its_parent_and_leaves_nothing():
    code = (
        "from serve_app.imaging.worker import DecodeWorker\n"
        "from serve_app.settings import ImageLimits\n"
        "import os, sys\n"
        "worker = DecodeWorker()\n"
        "worker.decode(bytes.fromhex(sys.argv[1]), ImageLimits())\n"
        "print(worker.pid, flush=True)\n"
        "os._exit(1)\n"
    )
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with psutil.Popen(
        [sys.executable, "-c", code, png(1, 8, 0, [b"a"]).hex()], stdout=-1, env=environment
    ) as parent:
        pid = int(parent.stdout.readline())
        parent.wait(30)
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=10)
    assert not psutil.pid_exists(pid)
    after = set(Path("/dev/shm").iterdir()) if before or Path("/dev/shm").is_dir() else set()
    assert not {path for path in after - before if "picture" in path.name}


def test_descriptors_are_not_lost(worker):
    worker.decode(SMALL, LIMITS)
    process = psutil.Process()
    before = process.num_fds()
    for _ in range(5):
        worker.decode(SMALL, LIMITS)
    assert process.num_fds() == before


def test_threads_take_turns(worker):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(worker.decode(SMALL, LIMITS)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for picture in found:
        same(picture, decode(SMALL, LIMITS))


def test_the_worker_of_this_process():
    same(decode_contained(SMALL, LIMITS), decode(SMALL, LIMITS))
