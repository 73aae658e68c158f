from __future__ import annotations

import gc
import logging
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from serve_app.errors import BrokenImage, Busy, InvalidParameter, TooLarge, UnsupportedImage
from serve_app.imaging import worker as worker_module
from serve_app.imaging.codec import decode
from serve_app.imaging.worker import DecodeWorker, DecodeWorkers, decode_contained
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import exif, noisy, png, saved, smooth

LIMITS = ImageLimits()
SMALL = saved(noisy(), "PNG")
# A child that greets, waits for a request, and then does what the test says.
_CHILD = """
import ctypes, os, socket, sys, time
line = socket.socket(fileno=int(sys.argv[1]))
line.sendall(b'{"ready": true}\\n')
_, memories, _, _ = socket.recv_fds(line, 65536, 2)
"""
_TOLD = '{"size": [48, 64], "alpha": false, "gray": false, "bit_depth": 8, "blocks": [null, null, null]}'


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


def _saying(true, lie):
    answer = _TOLD.replace(true, lie)
    return f"os.ftruncate(memories[1], 99999); line.sendall(b'{answer}\\n')"


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
        "line.sendall(b'[' * 60000 + b'\\n')",
        _saying("[48, 64]", "[Infinity, 1]"),
        _saying("[48, 64]", "[64, 48]"),
        _saying("[48, 64]", "[true, 3072]"),
        _saying("[null, null, null]", "[null, null, null, null]"),
        'line.sendall(b\'{"error": "too-large", "detail": "", "field": {}}\\n\')',
    ],
    ids=[
        *("abort", "segfault", "exit", "no json", "list", "empty", "no memory", "size", "endless"),
        *("deep", "infinite", "turned", "no number", "four blocks", "no error"),
    ],
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


def test_an_answer_that_drips_ends_with_the_whole_time():
    """Each byte comes well within the limit; all of them would take 40 s."""
    worker = evil("[(line.sendall(b' '), time.sleep(0.1)) for _ in range(400)]")
    with pytest.raises(TooLarge, match=r"longer than the limit of 0\.3 s"):
        worker.decode(SMALL, ImageLimits(decode_timeout_s=0.3))
    assert worker.pid is None


def test_a_child_cannot_take_the_picture_away_again():
    """To read memory that was mapped and then cut off would end this process by a signal."""
    say = f"os.ftruncate(memories[1], 99999); line.sendall(b'{_TOLD}\\n')"
    cut = (
        "try: os.ftruncate(memories[1], 0)\n"
        "except PermissionError: os.pwrite(memories[1], b'\\1', 0)\n"
        "time.sleep(1000)"
    )
    worker = evil(f"{say}\n{cut}")
    picture = worker.decode(SMALL, LIMITS)
    while picture.colour[0, 0, 0] == 0:
        time.sleep(0.01)
    assert picture.colour.sum() == 1
    worker.close()


def test_the_child_has_little_to_lose(worker, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "serve_app.imaging.worker")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    worker.close()
    worker.decode(SMALL, LIMITS)
    child = psutil.Process(worker.pid)
    assert not {"AWS_SECRET_ACCESS_KEY", "HOME"} & set(child.environ())
    most = LIMITS.decode_memory_bytes
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, most),
        (resource.RLIMIT_FSIZE, most),
        (resource.RLIMIT_NOFILE, 64),
    ):
        assert child.rlimit(kind) == (limit, limit)
    assert child.num_fds() <= 4  # nothing of the parent's but the line
    (record,) = (record for record in caplog.records if record.message == "decoder_started")
    confined = vars(record)["confined"]
    assert ("Seccomp:\t2" in Path(f"/proc/{child.pid}/status").read_text()) == confined
    assert Path(f"/proc/{child.pid}/oom_score_adj").read_text() == "1000\n"


def test_no_process_can_be_had():
    worker = DecodeWorker(["/no/such/program"])
    before = psutil.Process().num_fds()
    for _ in range(3):
        with pytest.raises(Busy) as caught:
            worker.decode(SMALL, LIMITS)
    assert caught.value.retry_after_s == 5
    worker.close()
    assert psutil.Process().num_fds() == before


def test_one_file_that_takes_its_time_holds_up_nobody_else(monkeypatch):
    slow, quick = evil("time.sleep(1000)"), DecodeWorker()
    workers = DecodeWorkers([quick, slow])
    monkeypatch.setattr(worker_module, "_workers", workers)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(decode_contained, SMALL, ImageLimits(decode_timeout_s=20))
        while slow.pid is None:
            time.sleep(0.01)
        same(decode_contained(SMALL, LIMITS), decode(SMALL, LIMITS))
        assert not first.done()
        psutil.Process(slow.pid).kill()
        assert isinstance(first.exception(), BrokenImage)
    workers.close()


def test_who_finds_no_free_decoder_in_time_is_told_to_come_again(monkeypatch):
    monkeypatch.setattr(worker_module, "_workers", DecodeWorkers([]))
    with pytest.raises(Busy) as caught:
        decode_contained(SMALL, ImageLimits(decode_timeout_s=0.01))
    assert caught.value.retry_after_s
    with pytest.raises(UnsupportedImage):  # judged before it waits
        decode_contained(b"no picture", LIMITS)


def mapped():
    """Pictures that this process still holds, of this test and of others."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("memfd:picture")


def test_much_trouble_in_many_threads_leaves_nothing_behind():
    worker, limits = DecodeWorker(), ImageLimits(decode_memory_bytes=2**29)
    hasty = limits.model_copy(update={"decode_timeout_s": 0.001})
    slow = saved(noisy(1500, 1500), "PNG")
    worker.decode(SMALL, limits)
    here = psutil.Process()
    before = here.num_fds(), len(here.children(recursive=True)), mapped()

    def one(turn):
        try:
            if turn % 10 == 0:
                worker.decode(slow, hasty)
            elif turn % 10 == 5:
                worker.decode(SMALL[:300], limits)
            else:
                return worker.decode(SMALL, limits).colour.shape
        except (BrokenImage, TooLarge) as error:
            return type(error)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(one, range(40)))
    assert found.count(TooLarge) == found.count(BrokenImage) == 4
    assert found.count((48, 64, 3)) == 32
    worker.decode(SMALL, limits)
    assert (here.num_fds(), len(here.children(recursive=True)), mapped()) == before
    worker.close()


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
