from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serve_app.errors import Busy
from serve_app.imaging.packets import contained_packet
from serve_app.imaging.worker import DecodeWorker
from serve_app.imaging.xmp import MOST_XMP_BYTES, written_packet
from serve_app.settings import ImageLimits
from tests.unit.imaging.results import XMP

LIMITS = ImageLimits()
FACTS = {
    "keep_gps": False,
    "software": "Tessera 1",
    "properties": {"version": "1", "prompt": 'é "<\ud800'},
}
GOOD = DecodeWorker()._command
# A child that reads a request and then does what the test says.
_CHILD = """
import ctypes, json, os, socket, sys, time
line = socket.socket(fileno=int(sys.argv[1]))
line.sendall(b'{"ready": true}\\n')
_, memories, _, _ = socket.recv_fds(line, 65536, 2)
def say(text, told):
    os.write(memories[1], text)
    line.sendall(json.dumps({"text": told}).encode() + b'\\n')
"""


def packet(source: bytes | None, limits: ImageLimits = LIMITS) -> bytes | None:
    return contained_packet(source, 300, 400, limits=limits, **FACTS)


@pytest.mark.parametrize("source", [XMP, None, b"", b"broken", b"<!DOCTYPE x><x/>", b"<" * 10**6])
def test_it_is_what_the_reader_makes_of_it(source):
    assert packet(source) == written_packet(source, 300, 400, **FACTS)


def test_nothing_to_say():
    plain = {**FACTS, "properties": {}}
    assert contained_packet(b"broken", 1, 1, limits=LIMITS, **plain) is None


@pytest.mark.parametrize(
    "does",
    [
        "os.abort()",
        "ctypes.string_at(0)",
        "line.sendall(b'{}\\n')",
        "say(b'a' * 9, -9)",
        "say(b'a' * 9, 0)",
        "say(b'a' * 9, True)",
        "say(b'a' * 9, 99)",
        "say(b'\\xff' * 9, 9)",
        "say(bytes(9), 9)",
        f"say(b'a' * {MOST_XMP_BYTES + 1}, {MOST_XMP_BYTES + 1})",
        'line.sendall(b\'{"error": "too-large", "detail": "", "field": {}}\\n\')',
        "time.sleep(1000)",
    ],
    ids=[
        *("abort", "segfault", "empty", "negative", "zero", "no number", "more than there is"),
        *("no text", "zeros", "too long", "an error", "silence"),
    ],
)
def test_a_packet_that_kills_its_reader_costs_what_it_said(does, only):
    worker = DecodeWorker([sys.executable, "-c", _CHILD + does])
    only(worker)
    hasty = ImageLimits(decode_timeout_s=0.5) if "sleep" in does else LIMITS
    assert packet(XMP, hasty) == written_packet(None, 300, 400, **FACTS)
    worker.close()
    worker._command = GOOD
    assert packet(XMP) == written_packet(XMP, 300, 400, **FACTS)


def test_who_finds_no_reader_is_told_to_come_again(only):
    only()
    with pytest.raises(Busy):
        packet(XMP, ImageLimits(decode_timeout_s=0.01))
    assert packet(None) == written_packet(None, 300, 400, **FACTS)


def test_no_packet_of_a_stranger_is_parsed_in_this_process():
    code = (
        "import numpy as np\n"
        "from serve_app.imaging import xmp\n"
        "from serve_app.imaging.encode import encode\n"
        "from tests.unit.imaging.results import XMP, look\n"
        "parsed, real = [], xmp._parsed\n"
        "xmp._parsed = lambda packet: parsed.append(packet) or real(packet)\n"
        "look = look(xmp=XMP, provenance={'seed': 1})\n"
        "assert b'Ada' in encode(np.ones((9, 9, 3), np.float32), None, look)\n"
        "assert not any('Ada' in packet for packet in parsed)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, ["", *sys.path]))}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)
