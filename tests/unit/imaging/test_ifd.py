from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serve_app.imaging import ifd
from serve_app.imaging.ifd import (
    EXIF_TAG,
    GPS_TAG,
    LONG,
    SHORT,
    UNDEFINED,
    Value,
    numbers,
    read_block,
    text,
    write_block,
)
from tests.unit.imaging.results import camera_exif

values = st.binary(min_size=1, max_size=20).map(lambda raw: Value(UNDEFINED, len(raw), raw))
directories = st.dictionaries(st.integers(1, 0x8000), values, min_size=1, max_size=8)


@given(directories, directories, st.sampled_from("<>"))
def test_what_is_written_is_read(first, inner, order):
    directory = first | {EXIF_TAG: inner, GPS_TAG: inner}
    block = write_block(directory, order)
    assert read_block(block) == (order, directory)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pillow_reads_what_is_written(order):
    shot = {0x9003: text("2020:01:01 00:00:00"), 0xA002: numbers(order, LONG, 70000)}
    block = write_block(
        {0x010F: text("Cäm"), 0x0112: numbers(order, SHORT, 6), EXIF_TAG: shot}, order
    )
    exif = Image.Exif()
    exif.load(block)
    assert (exif[0x010F], exif[0x0112]) == ("C?m", 6)
    assert exif.get_ifd(EXIF_TAG) == {0x9003: "2020:01:01 00:00:00", 0xA002: 70000}


@given(st.integers(0, 400), st.integers(0, 255), st.integers(0, 400))
def test_bent_and_cut_blocks_are_read_or_refused(place, value, end):
    block = bytearray(camera_exif())
    block[place % len(block)] = value
    try:
        _, found = read_block(bytes(block[:end]))
    except ValueError:
        return
    assert sum(len(v.raw) for v in found.values() if isinstance(v, Value)) <= end


def test_entries_that_share_their_data_are_refused():
    """Else a block of 64 KB could be blown up to many times that."""
    shared = Value(UNDEFINED, 100, b"x" * 100)
    block = bytearray(write_block(dict.fromkeys(range(1, 6), shared), "<"))
    for entry in range(1, 5):
        at = 10 + 12 * entry + 8
        block[at : at + 4] = block[18:22]
    assert len(read_block(bytes(block))[1]) == 5
    with pytest.raises(ValueError, match="share"):
        read_block(bytes(block[: len(block) - 300]))


def test_too_many_entries_are_refused(monkeypatch):
    monkeypatch.setattr(ifd, "_MOST_ENTRIES", 3)
    with pytest.raises(ValueError, match="4 entries"):
        read_block(write_block({tag: text("x") for tag in range(1, 5)}, "<"))
