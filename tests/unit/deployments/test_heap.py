"""What is large goes back to the system when it is freed, on whichever thread it was used."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from serve_app.deployments import heap

_THREADS = """
import threading
from pathlib import Path
import numpy as np
from serve_app.deployments.heap import return_large_blocks

def held_mib():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024

def work(done, end):
    for mib in (31, 30, 29):
        np.ones(mib * 2**20, np.uint8)
    done.release()
    end.wait()

return_large_blocks()
before, done, end = held_mib(), threading.Semaphore(0), threading.Event()
threads = [threading.Thread(target=work, args=(done, end)) for _ in range(8)]
for thread in threads:
    thread.start()
for _ in threads:
    done.acquire()
print(held_mib() - before)
end.set()
"""


def test_threads_that_have_worked_hold_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _THREADS], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 20


def test_without_the_knob_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: asked.append(name))
    heap.return_large_blocks()
    assert asked == [None]
