from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.errors import Busy, InvalidParameter
from serve_app.imaging import profiles
from serve_app.imaging.convert import to_profile
from serve_app.imaging.profiles import Conversion
from serve_app.imaging.worker import DecodeWorker
from serve_app.settings import ImageLimits
from tests.unit.imaging.results import endless_profile, gray_profile, p3, srgb

LIMITS = ImageLimits()
COLOURS = np.random.default_rng(1).integers(0, 65536, (30, 20, 3)).astype(np.uint16)
GOOD = DecodeWorker()._command
# A child that answers the first try of a profile, if the test says so, and then does what the test says.
_CHILD = """
import ctypes, json, os, socket, sys, time
import numpy as np
line = socket.socket(fileno=int(sys.argv[1]))
line.sendall(b'{"ready": true}\\n')
def asked():
    text, memories, _, _ = socket.recv_fds(line, 65536, 2)
    request = json.loads(text)
    return request["pixels"] * request["channels"], memories[1]
def say(count, memory, told=None):
    os.write(memory, bytes(2 * count))
    line.sendall(json.dumps({"samples": count if told is None else told}).encode() + b'\\n')
count, memory = asked()
while RIGHT and count == 3 * 9**3:
    say(count, memory)
    count, memory = asked()
"""


def evil(does: str, right: int = 0) -> DecodeWorker:
    return DecodeWorker([sys.executable, "-c", _CHILD.replace("RIGHT", str(right)) + does])


def conversion(icc: bytes, *, gray: bool = False, limits: ImageLimits = LIMITS) -> Conversion:
    return Conversion(icc, gray=gray, limits=limits)


@pytest.mark.parametrize(
    ("icc", "gray"), [(p3(), False), (gray_profile(1.0), True), (gray_profile(2.2), True)]
)
def test_it_is_what_the_library_says_bit_for_bit(icc, gray):
    found = conversion(icc, gray=gray)(COLOURS)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, to_profile(COLOURS, icc, 1 if gray else 3))


@pytest.mark.parametrize("pixels", [50, 600, 601])
def test_it_is_the_same_whatever_goes_over_at_once(pixels, monkeypatch):
    monkeypatch.setattr(profiles, "_AT_ONCE_PIXELS", pixels)
    colours = COLOURS[:3]
    np.testing.assert_array_equal(conversion(p3())(colours), to_profile(colours, p3(), 3))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 29))
def test_rows_do_not_ask_for_their_neighbours(cut):
    convert = conversion(p3())
    parts = [convert(COLOURS[:cut]), convert(COLOURS[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), convert(COLOURS))


def test_srgb_by_another_name_changes_no_bit():
    np.testing.assert_array_equal(conversion(srgb())(COLOURS), COLOURS)


def test_a_gray_profile_gives_one_channel():
    assert conversion(gray_profile(1.0), gray=True)(COLOURS).shape == (30, 20, 1)


@pytest.mark.parametrize(
    ("icc", "gray"),
    [
        (b"", False),
        (b"nonsense" * 40, False),
        (p3()[:300], False),
        (p3(), True),
        (gray_profile(2.2), False),
    ],
    ids=["empty", "nonsense", "cut", "colour for gray", "gray for colour"],
)
def test_what_cannot_be_written_to_is_refused(icc, gray):
    with pytest.raises(ValueError, match="profile"):
        conversion(icc, gray=gray)


def test_what_only_the_library_refuses_is_told_without_its_words():
    icc = bytearray(p3())
    icc[132:136] = b"none"  # a tag that it needs, by another name
    icc[icc.index(b"rXYZ") : icc.index(b"rXYZ") + 4] = b"nXYZ"
    with pytest.raises(InvalidParameter) as caught:
        conversion(bytes(icc))
    assert caught.value.detail == "color_profile: the source's profile cannot be written to"
    assert (caught.value.field, caught.value.allowed) == ("color_profile", "srgb")


def test_a_profile_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(profiles, "MOST_PROFILE_BYTES", 100)
    with pytest.raises(ValueError, match="too large"):
        conversion(p3())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (12, b"link"),
        (16, b"CMYK"),
        (20, b"RGB "),
        (36, b"none"),
        (128, b"\xff" * 4),
        (136, b"\xff" * 4),
    ],
    ids=["class", "space", "connection", "signature", "count", "offset"],
)
def test_a_profile_is_judged_before_a_library_sees_it(place, value, monkeypatch):
    icc = bytearray(p3())
    icc[place : place + 4] = value
    monkeypatch.setattr(profiles, "convert_contained", None)
    with pytest.raises(ValueError, match="profile"):
        conversion(bytes(icc))


DEADLY = {
    "abort": "os.abort()",
    "segfault": "ctypes.string_at(0)",
    "exit": "sys.exit(0)",
    "no json": "line.sendall(b'no json at all\\n')",
    "empty": "line.sendall(b'{}\\n')",
    "no memory": "line.sendall(b'{\"samples\": %d}\\n' % count)",
    "less": "say(count - 1, memory)",
    "more": "say(count + 1, memory)",
    "less than told": "say(count - 1, memory, count)",
    "negative": "say(count, memory, -count)",
    "no number": "say(count, memory, True)",
    "text": "say(count, memory, str(count))",
    "infinite": "say(count, memory, float('inf'))",
    "endless": "line.sendall(b'x' * 100000)",
}


@pytest.mark.parametrize("right", [0, 1], ids=["at first", "in mid-file"])
@pytest.mark.parametrize("does", DEADLY.values(), ids=DEADLY)
def test_a_profile_that_kills_its_converter_costs_one_answer(does, right, only):
    worker = evil(does, right)
    only(worker)
    with pytest.raises(InvalidParameter, match="died of it") as caught:
        conversion(p3())(COLOURS)
    assert (caught.value.field, caught.value.allowed) == ("color_profile", "srgb")
    assert worker.pid is None
    worker._command = GOOD
    np.testing.assert_array_equal(conversion(p3())(COLOURS[:2]), to_profile(COLOURS[:2], p3(), 3))


def test_an_error_that_a_child_tells_is_told_in_our_words(only):
    said = '{"error": "too-large", "detail": "<b>anything</b>", "field": "image"}'
    only(evil(f"line.sendall(b'{said}\\n'); time.sleep(1000)"))
    with pytest.raises(InvalidParameter, match=r"cannot be written to$"):
        conversion(p3())


def test_a_profile_that_works_for_ever_is_given_up_long_before_the_limit_on_time(only):
    """It is a profile like any other, in a quarter of a megabyte; before, it held its process for minutes."""
    only(worker := DecodeWorker())
    assert to_profile(COLOURS, endless_profile(10), 3).shape == COLOURS.shape
    with pytest.raises(InvalidParameter, match="died of it"):
        conversion(endless_profile(30_000))
    assert worker.pid is None


@pytest.mark.parametrize(
    "does",
    ["time.sleep(1000)", "[line.sendall(b' ') or time.sleep(0.05) for _ in range(999)]"],
    ids=["silent", "dripping"],
)
def test_a_profile_that_takes_for_ever_is_given_up(does, only):
    worker = evil(does, right=1)
    only(worker)
    with pytest.raises(InvalidParameter, match=r"longer to write to than the limit of 0\.5 s"):
        conversion(p3(), limits=ImageLimits(decode_timeout_s=0.5))(COLOURS)
    assert worker.pid is None


def test_a_converter_that_was_killed_between_two_bands_is_replaced(only):
    worker = DecodeWorker()
    only(worker)
    convert = conversion(p3())
    first = psutil.Process(worker.pid)
    first.kill()
    first.wait()
    np.testing.assert_array_equal(convert(COLOURS), to_profile(COLOURS, p3(), 3))
    assert worker.pid != first.pid


def test_a_converter_that_is_killed_in_mid_file_costs_nothing(monkeypatch):
    """Memory is short, say, and the kernel picks it: the profile went well before."""
    convert, contained, calls = conversion(p3()), profiles.convert_contained, []

    def dies_once(*given):
        calls.append(given)
        if len(calls) == 1:
            raise InvalidParameter("color_profile: died", field="color_profile", allowed="srgb")
        return contained(*given)

    monkeypatch.setattr(profiles, "convert_contained", dies_once)
    np.testing.assert_array_equal(convert(COLOURS), to_profile(COLOURS, p3(), 3))
    assert len(calls) == 2


def test_who_finds_no_converter_is_told_to_come_again(only):
    only()
    with pytest.raises(Busy) as caught:
        conversion(p3(), limits=ImageLimits(decode_timeout_s=0.01))
    assert caught.value.retry_after_s
    only(DecodeWorker(["/no/such/program"]))
    with pytest.raises(Busy):
        conversion(p3())


def test_no_library_follows_a_profile_in_this_process():
    """A file is written in a profile without one call of libvips, which has lcms in it."""
    code = (
        "import sys, pyvips, numpy as np\n"
        "from serve_app.imaging.encode import encode\n"
        "from tests.unit.imaging.results import look, p3\n"
        "icc = p3()\n"
        "pyvips.Operation.call = pyvips.Image.new_from_memory = sys.exit\n"
        "found = encode(np.ones((9, 9, 3), np.float32), None, look(icc=icc))\n"
        "assert b'iCCP' in found\n"
        "assert 'serve_app.imaging.convert' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, ["", *sys.path]))}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)
