from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serve_app.imaging.ifd import (
    EXIF_TAG,
    GPS_TAG,
    LONG,
    UNDEFINED,
    Value,
    numbers,
    read_block,
    write_block,
)
from serve_app.imaging.metadata import MOST_EXIF_BYTES, carried_exif, exif_of_tiff
from tests.unit.imaging.results import camera_exif


def carried(block: bytes | None, keep_gps: bool = False, is_srgb: bool = True) -> bytes | None:
    return carried_exif(block, 300, 400, keep_gps=keep_gps, is_srgb=is_srgb, software="Tessera 1")


def read(block: bytes | None) -> Image.Exif:
    assert block is not None
    exif = Image.Exif()
    exif.load(block)
    return exif


def test_what_is_still_true_is_kept_and_what_changed_is_corrected():
    exif = read(carried(camera_exif()))
    assert dict(exif) | {EXIF_TAG: 0} == {
        0x010F: "Cam",
        0x0112: 1,
        0x0131: "Tessera 1",
        EXIF_TAG: 0,
    }
    assert exif.get_ifd(EXIF_TAG) == {
        0x829A: 1 / 250,
        0x9003: "2020:01:01 00:00:00",
        0x9204: -0.5,
        0xA001: 1,
        0xA002: 400,
        0xA003: 300,
    }


def test_in_another_profile_the_colour_space_is_said_to_be_uncalibrated():
    assert read(carried(camera_exif(), is_srgb=False)).get_ifd(EXIF_TAG)[0xA001] == 0xFFFF


@pytest.mark.parametrize("keep_gps", [False, True])
def test_the_place_is_kept_only_if_asked_for(keep_gps):
    block = carried(camera_exif(), keep_gps)
    assert (GPS_TAG in read(block)) is keep_gps
    if keep_gps:
        assert read(block).get_ifd(GPS_TAG) == {1: "N", 2: (52.0, 31.0, 12.5)}


def test_sizes_of_the_first_directory_are_corrected():
    source = Image.Exif()
    source[0x0100], source[0x0101] = 40, 30
    exif = read(carried(source.tobytes()[6:]))
    assert (exif[0x0100], exif[0x0101]) == (400, 300)


def test_what_is_hidden_between_the_values_does_not_travel():
    order, directory = read_block(camera_exif())
    thumbnail = b"\xff\xd8 a small picture \xff\xd9"
    block = carried(write_block(directory, order) + thumbnail)
    assert block is not None
    assert b"small picture" not in block
    assert b"secret" not in block


@pytest.mark.parametrize("block", [None, b"", b"II*\0", b"no block", b"II*\0\xff\xff\xff\xff"])
def test_what_makes_no_sense_is_dropped(block):
    assert carried(block) is None


def test_what_does_not_fit_is_dropped():
    raw = b"x" * MOST_EXIF_BYTES
    assert carried(write_block({0x010E: Value(UNDEFINED, len(raw), raw)}, "<")) is None


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
def test_bent_blocks_never_fail(places):
    block = bytearray(camera_exif())
    for place, value in places:
        block[place % len(block)] = value
    found = carried(bytes(block), keep_gps=True)
    assert found is None or read_block(found)[1][0x0112].raw in (b"\1\0", b"\0\1")


def test_a_makers_own_tags_do_not_travel():
    order, directory = read_block(camera_exif())
    directory[EXIF_TAG] = {**directory[EXIF_TAG], 0xEA1D: Value(UNDEFINED, 6, b"52.31N")}
    block = carried(write_block(directory, order))
    assert block is not None
    assert b"52.31N" not in block


@pytest.mark.parametrize("keep_gps", [False, True])
def test_a_tiffs_own_tags_are_gathered(keep_gps):
    order, directory = read_block(camera_exif())
    directory |= {0x830E: Value(UNDEFINED, 6, b"52.31N"), 0x0111: numbers(order, LONG, 8)}
    gathered = exif_of_tiff(write_block(directory, order) + b"pixels")
    exif = read(carried(gathered, keep_gps))
    assert exif[0x010F] == "Cam"
    assert exif.get_ifd(EXIF_TAG)[0x9003] == "2020:01:01 00:00:00"
    assert (GPS_TAG in exif) is keep_gps
    assert gathered is not None
    assert b"52.31N" not in gathered


@pytest.mark.parametrize("data", [b"", b"II+\0" + b"\0" * 20, b"II*\0\xff\xff\xff\xff"])
def test_a_tiff_that_makes_no_sense_has_none(data):
    assert exif_of_tiff(data) is None


def test_a_text_in_utf_8_is_kept():
    """EXIF 3.0 has a type of its own for it."""
    author = "Zoë".encode() + b"\0"
    _, found = read_block(
        carried(write_block({0x013B: Value(129, len(author), author)}, "<")) or b""
    )
    assert found[0x013B] == Value(129, len(author), author)
