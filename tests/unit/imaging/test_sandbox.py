"""What a confined process can still do, tried in one."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

_TRY = """
import ctypes, json, os, resource, signal, socket, subprocess, sys, tempfile, threading
from serve_app.imaging.sandbox import enter

line, other = socket.socketpair()
go, early = threading.Event(), []
def before():
    go.wait()
    early.append(tried(socket.socket))
first = threading.Thread(target=before)
first.start()
place = sys.argv[1]
confined = enter()

def tried(does):
    try:
        does()
    except OSError as error:
        return error.errno
    return "done"

def thread():
    found = []
    worker = threading.Thread(target=lambda: found.append(1))
    worker.start()
    worker.join()
    if not found:
        raise OSError

print(json.dumps({
    "confined": confined,
    "socket": tried(socket.socket),
    "another program": tried(lambda: os.execv(sys.executable, [sys.executable])),
    "fork": tried(os.fork),
    "subprocess": tried(lambda: subprocess.run([sys.executable, "-c", ""])),
    "a thread from before": (go.set(), first.join(), early[0])[2],
    "signal": tried(lambda: os.kill(os.getppid(), 0)),
    "limits of another": tried(lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU)),
    "write": tried(lambda: open(place + "/new", "w")),
    "append": tried(lambda: open(place + "/old", "a")),
    "temporary file": tried(tempfile.TemporaryFile),
    "remove": tried(lambda: os.remove(place + "/old")),
    "rename": tried(lambda: os.rename(place + "/old", place + "/new")),
    "read": tried(lambda: open(place + "/old").read()),
    "thread": tried(thread),
    "own limits": tried(lambda: resource.getrlimit(resource.RLIMIT_CPU)),
    "line": tried(lambda: (line.send(b"x"), other.recv(1))),
    "memory": tried(lambda: os.ftruncate(int(sys.argv[2]), 9999)),
}))
sys.stdout.flush()
os.abort()
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    (place / "old").write_text("here")
    memory = os.memfd_create("picture")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", _TRY, str(place), str(memory)],
        stdout=subprocess.PIPE,
        pass_fds=[memory],
        env=environment,
        timeout=60,
        check=False,
    )
    os.close(memory)
    assert (place / "old").read_text() == "here"
    assert done.returncode < 0  # it can still end itself by a signal
    return json.loads(done.stdout)


def test_it_confines_where_it_can(tried):
    assert tried["confined"] is (sys.platform == "linux" and platform.machine() == "x86_64")


@pytest.mark.parametrize(
    "what",
    [
        *("socket", "another program", "fork", "subprocess", "signal", "limits of another"),
        *("a thread from before", "write", "append", "temporary file", "remove", "rename"),
    ],
)
def test_nothing_reaches_beyond_the_process(tried, what):
    assert tried[what] != "done" or not tried["confined"]


@pytest.mark.parametrize("what", ["read", "thread", "own limits", "line", "memory"])
def test_what_a_decoder_needs_goes_on(tried, what):
    assert tried[what] == "done"
