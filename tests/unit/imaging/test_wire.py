from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from serve_app.errors import BrokenImage, TooLarge
from serve_app.imaging.codec import Picture
from serve_app.imaging.traits import Traits
from serve_app.imaging.wire import (
    SharedMemory,
    error_message,
    picture_message,
    read_answer,
    read_samples,
    receive,
    samples_message,
    send,
)


@pytest.fixture
def memory():
    memory = SharedMemory.create()
    yield memory
    memory.close()


def laid(memory, with_alpha=True):
    """A picture as the child lays it, and what it says of it."""
    colour = memory.allocate((3, 5, 3))
    colour[:] = np.arange(45).reshape(3, 5, 3)
    alpha = memory.allocate((3, 5)) if with_alpha else None
    if alpha is not None:
        alpha[:] = 7
    picture = Picture(colour, alpha, Traits(True, 16, b"profile", None, b"packet"))
    return picture, picture_message(picture, memory)


@pytest.mark.parametrize("with_alpha", [True, False])
def test_a_picture_comes_over_whole(memory, with_alpha):
    sent, message = laid(memory, with_alpha)
    found = read_answer(message, SharedMemory(memory.descriptor), 15)
    np.testing.assert_array_equal(found.colour, sent.colour)
    assert (found.alpha is None) == (not with_alpha)
    assert found.traits == sent.traits
    sent.colour[2, 4, 2] = 999
    assert found.colour[2, 4, 2] == 999  # the same memory


@pytest.mark.parametrize(
    "lie",
    [
        {"size": [5, 5]},
        {"size": [-3, -5]},
        {"size": None},
        {"blocks": [1 << 40, None, None]},
        {"blocks": [-1, None, None]},
        {"blocks": "?"},
        {"blocks": []},
        {"blocks": [None, None]},
        {"size": [float("inf"), 1]},
        {"size": [3.0, 5]},
        {"size": ["3", "5"]},
    ],
)
def test_a_lie_is_a_value_error(memory, lie):
    _, message = laid(memory)
    with pytest.raises(ValueError):
        read_answer({**message, **lie}, SharedMemory(memory.descriptor), 15)


def test_samples_come_over_as_a_copy(memory):
    """What was judged stays what it was, whatever the other side does to the memory."""
    sent = np.arange(24, dtype=np.uint16).reshape(2, 4, 3)
    message = samples_message(sent, memory)
    found = read_samples(message, SharedMemory(memory.descriptor), (2, 4, 3))
    os.pwrite(memory.descriptor, bytes(sent.nbytes), 0)
    np.testing.assert_array_equal(found, sent)


@pytest.mark.parametrize("told", [{}, *({"samples": n} for n in (23, 25, -24, 24.0, "24", True))])
def test_a_lie_about_samples_is_a_value_error(memory, told):
    samples_message(np.zeros((2, 4, 3), np.uint16), memory)
    with pytest.raises(ValueError):
        read_samples(told, SharedMemory(memory.descriptor), (2, 4, 3))


def test_samples_that_are_not_there_are_a_value_error(memory):
    message = samples_message(np.zeros((2, 4, 3), np.uint16), memory)
    with pytest.raises(ValueError):
        read_samples(message | {"samples": 36}, SharedMemory(memory.descriptor), (3, 4, 3))


def test_an_error_is_raised_as_it_was(memory):
    message = error_message(TooLarge("big", field="image", allowed="less"))
    with pytest.raises(TooLarge, match="big") as caught:
        read_answer(message, memory, 1)
    assert (caught.value.field, caught.value.allowed) == ("image", "less")


def test_an_error_that_is_no_text_elsewhere_is_spelled_out(memory):
    """Told on through Ray, half of a surrogate pair would end the process that tells it."""
    with pytest.raises(TooLarge) as caught:
        read_answer({"error": "too-large", "detail": "\ud800", "field": "\udfff"}, memory, 1)
    assert (caught.value.detail, caught.value.field) == ("\\ud800", "\\udfff")


def test_an_unknown_error_is_a_broken_picture(memory):
    with pytest.raises(BrokenImage):
        read_answer({"error": "root", "detail": "x"}, memory, 1)


def test_messages_cross_a_socket_with_their_memory():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        memory = SharedMemory.create(b"content")
        send(ours, {"text": "x" * 5000}, (memory,))
        message, (found,) = receive(theirs, 1)
        assert message == {"text": "x" * 5000}
        assert found.whole() == b"content"
        found.close()
        memory.close()


def test_an_error_of_other_things_than_words_is_a_value_error(memory):
    for facts in ({"field": []}, {"allowed": 3}, {"detail": None}):
        with pytest.raises(ValueError):
            read_answer({"error": "too-large", "detail": "x", **facts}, memory, 1)


def test_memory_grows_and_is_never_made_smaller(memory):
    memory.append(b"1234")
    os.ftruncate(memory.descriptor, 8192)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.descriptor, 2)
    assert memory.whole() == b"1234".ljust(8192, b"\0")


def test_a_message_is_waited_for_as_a_whole():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b'{"a": ')
        with pytest.raises(TimeoutError):
            receive(theirs, within_s=0.05)


@pytest.mark.parametrize("said", [b"[]\n", b"{\n", b"\xff\n", b"x" * 70000, b"[" * 60000 + b"\n"])
def test_what_is_no_message(said):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(said)
        with pytest.raises(ValueError):
            receive(theirs)


def test_the_end_of_the_other_side():
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        with pytest.raises(EOFError):
            receive(theirs)
