from __future__ import annotations

import struct

import pytest

from serve_app.imaging.containers import NotRead
from serve_app.imaging.directories import read_tiff

GRAY = {0x100: 30, 0x101: 20, 0x102: 8, 0x106: 1, 0x115: 1}


def directory(tags, order="<"):
    """A TIFF of nothing but a directory of SHORTs."""
    entries = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, v, 0) for tag, v in tags.items())
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_first_directory_is_read(order):
    facts = read_tiff(directory({**GRAY, 0x112: 6}, order))
    assert (facts.height, facts.width, facts.orientation, facts.bit_depth) == (20, 30, 6, 8)
    assert not facts.has_alpha


@pytest.mark.parametrize(("kind", "has_alpha"), [(0, False), (1, True), (2, True)])
def test_only_what_is_declared_alpha_is_alpha(kind, has_alpha):
    assert read_tiff(directory({**GRAY, 0x115: 2, 0x152: kind})).has_alpha is has_alpha


@pytest.mark.parametrize(
    "change", [{0x153: 3}, {0x153: 2}, {0x102: 32}, {0x102: 12}, {0x106: 8}, {0x106: 32803}]
)
def test_kinds_that_are_not_read(change):
    with pytest.raises(NotRead, match="TIFF"):
        read_tiff(directory({**GRAY, **change}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({0x103: 50000}, "compression 50000"),
        ({0x103: 6}, "compression 6"),
        ({0x106: 6, 0x115: 3}, "luma and chroma"),
        ({0x106: 6, 0x115: 3, 0x103: 7, 0x11C: 2}, "luma and chroma"),
        ({0x106: 5, 0x115: 4, 0x14C: 2}, "inks"),
        ({0x115: 3}, "one colour and 2 more samples"),
        ({0x102: 4, 0x106: 2, 0x115: 3}, "3 samples of 4 bits"),
        ({0x106: 2, 0x115: 3, 0x11C: 2, 0x142: 16}, "planes in tiles"),
    ],
)
def test_what_the_decoder_would_show_in_wrong_colours_or_not_at_all(change, named):
    with pytest.raises(NotRead, match=named):
        read_tiff(directory({**GRAY, **change}))


def test_luma_and_chroma_within_jpeg_are_read():
    assert read_tiff(directory({**GRAY, 0x106: 6, 0x115: 3, 0x103: 7})).width == 30


def test_too_few_samples_for_the_colours():
    with pytest.raises(ValueError, match="1 samples for 3 colours"):
        read_tiff(directory({**GRAY, 0x106: 2}))


def test_a_directory_without_a_size():
    with pytest.raises(ValueError, match="0x101"):
        read_tiff(directory({tag: v for tag, v in GRAY.items() if tag != 0x101}))


@pytest.mark.parametrize("at", [0, 4, 2**31])
def test_a_directory_that_lies_elsewhere(at):
    with pytest.raises((struct.error, ValueError)):
        read_tiff(b"II*\0" + struct.pack("<I", at) + b"\xff" * 40)


def test_a_million_entries_are_refused():
    with pytest.raises(ValueError, match="65535 entries"):
        read_tiff(b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(65535 * 12))
