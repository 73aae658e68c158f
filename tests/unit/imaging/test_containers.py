from __future__ import annotations

import struct

import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.imaging.containers import (
    NotRead,
    SourceFormat,
    orientation_of,
    read_bmp,
    read_jpeg,
    read_png,
    recognise,
)
from serve_app.imaging.inspect import READERS
from tests.unit.imaging.pictures import chunk, exif, png, saved, smooth

pillow_heif.register_heif_opener()
_BARE = (SourceFormat.BMP, SourceFormat.GIF, SourceFormat.TIFF)
_NAMES = {SourceFormat.HEIC: "HEIF"}
WHOLE = {
    kind: saved(
        smooth(), _NAMES.get(kind, kind.upper()), **({} if kind in _BARE else {"exif": exif(1)})
    )
    for kind in SourceFormat
}


@pytest.mark.parametrize("kind", SourceFormat)
def test_a_format_is_told_by_its_first_bytes(kind):
    assert recognise(WHOLE[kind]) is kind
    assert recognise(WHOLE[kind][:16]) is kind
    assert recognise(b"x" + WHOLE[kind]) is None


@pytest.mark.parametrize("kind", SourceFormat)
@settings(deadline=None)
@given(place=st.integers(0, 200), value=st.integers(0, 255), end=st.integers(12, 3000))
def test_bent_and_cut_files_raise_only_what_is_promised(kind, place, value, end):
    bent = bytearray(WHOLE[kind][:end])
    bent[place % len(bent)] = value
    try:
        facts = READERS[kind](bytes(bent))
    except (struct.error, IndexError, ValueError):
        return
    assert 1 <= facts.orientation <= 8
    assert facts.height >= 0
    assert facts.width >= 0


def test_an_avif_may_call_itself_any_picture():
    data = WHOLE[SourceFormat.AVIF]
    assert b"avif" in data[16:32]
    assert recognise(data[:8] + b"mif1" + data[12:]) is SourceFormat.AVIF
    heic = WHOLE[SourceFormat.HEIC]
    assert recognise(heic[:8] + b"mif1" + heic[12:]) is SourceFormat.HEIC


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_may_be_a_long(order):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    block = mark + struct.pack(order + "IHHHII", 8, 1, 0x0112, 4, 1, 6) + bytes(4)
    assert orientation_of(block) == 6


def test_of_two_blocks_of_exif_the_first_counts():
    data = saved(smooth(40, 60), "JPEG", exif=b"Exif\0\0" + exif(3))
    second = b"Exif\0\0" + exif(6)
    at = data.index(b"\xff\xdb")
    block = b"\xff\xe1" + struct.pack(">H", len(second) + 2) + second
    assert read_jpeg(data[:at] + block + data[at:]).orientation == 3


def test_bits_of_a_sample():
    assert read_png(png(2, 16, 0, [b"\0\1\0\2"])).bit_depth == 16
    assert read_png(png(8, 1, 0, [b"\xaa"])).bit_depth == 1


def test_a_thumbnail_inside_exif_is_not_the_picture():
    thumbnail = saved(smooth(8, 8), "JPEG")
    block = b"Exif\0\0" + exif(3) + thumbnail
    facts = read_jpeg(saved(smooth(40, 60), "JPEG", exif=block))
    assert (facts.height, facts.width, facts.orientation) == (40, 60, 3)


def test_padding_and_strays_before_a_marker_are_passed_over():
    data = WHOLE[SourceFormat.JPEG]
    facts = read_jpeg(data[:2] + b"\xff\xff\xff\0\0" + data[2:])
    assert (facts.height, facts.width) == (40, 60)


def test_files_in_endless_parts_are_refused():
    many = 60_000
    pixels = png(3, 8, 0, [b"abc"])
    riff = b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 10
    for kind, data in (
        (SourceFormat.PNG, pixels[:33] + chunk(b"teSt") * many + pixels[33:]),
        (SourceFormat.JPEG, b"\xff\xd8" + b"\xff\xfe\0\2" * many + WHOLE[SourceFormat.JPEG][2:]),
        (SourceFormat.WEBP, riff + b"teSt\0\0\0\0" * many),
    ):
        with pytest.raises(ValueError, match="50000 parts"):
            READERS[kind](data)


@pytest.mark.parametrize("compression", [0, 3])
def test_a_bmp_of_16_bits_whose_masks_no_decoder_knows_is_named(compression):
    masks = struct.pack("<III", 0xF00, 0xF0, 0xF)
    head = struct.pack("<IiiHHIIIIII", 40, 3, 2, 1, 16, compression, 0, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 100, 0, 0, 66) + head + masks + bytes(16)
    if compression:
        with pytest.raises(NotRead, match="masks"):
            read_bmp(data)
    else:
        assert (read_bmp(data).height, read_bmp(data).width) == (2, 3)
    known = data[:54] + struct.pack("<III", 0xF800, 0x7E0, 0x1F) + data[66:]
    assert read_bmp(known).width == 3
