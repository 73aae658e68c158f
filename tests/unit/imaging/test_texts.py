from __future__ import annotations

import zlib

import pytest

from serve_app.imaging.texts import XMP_KEYWORD, png_texts
from tests.unit.imaging.pictures import chunk, ihdr

PACKET = b"<x:xmpmeta/>"
START = b"\x89PNG\r\n\x1a\n" + ihdr(1, 1)
DIGITS = (
    b"\nxmp\n      12\n" + PACKET[:8].hex().encode() + b"\n" + PACKET[8:].hex().encode() + b"\n"
)


def found(*chunks: bytes, most_bytes: int = 1000) -> list[tuple[str, bytes]]:
    return list(png_texts(START + b"".join(chunks) + chunk(b"IEND"), most_bytes))


@pytest.mark.parametrize(
    ("stored", "keyword"),
    [
        (chunk(b"tEXt", b"Key\0" + PACKET), "Key"),
        (chunk(b"zTXt", b"Key\0\0" + zlib.compress(PACKET)), "Key"),
        (chunk(b"iTXt", b"Key\0\0\0de\0Schl\xc3\xbcssel\0" + PACKET), "Key"),
        (chunk(b"iTXt", b"Key\0\1\0\0\0" + zlib.compress(PACKET)), "Key"),
        (chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(PACKET)), XMP_KEYWORD),
        (chunk(b"tEXt", b"Raw profile type xmp\0" + DIGITS), XMP_KEYWORD),
        (chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(DIGITS)), XMP_KEYWORD),
    ],
)
def test_a_text_in_any_form(stored, keyword):
    assert found(stored) == [(keyword, PACKET)]
    assert found(chunk(b"gAMA", bytes(4)), stored, stored) == 2 * [(keyword, PACKET)]
    assert found(stored, most_bytes=len(PACKET) - 1) == []


@pytest.mark.parametrize(
    "stored",
    [
        chunk(b"tEXt", b"no end"),
        chunk(b"zTXt", b"Key\0"),
        chunk(b"zTXt", b"Key\0\0no zlib"),
        chunk(b"zTXt", b"Key\0\0" + zlib.compress(bytes(10**7))),
        chunk(b"iTXt", b"Key\0\0\0"),
        chunk(b"tEXt", b"Raw profile type xmp\0\nxmp\n 3\nxyz"),
        chunk(b"tEXt", b"Raw profile type xmp\0\xff\xff"),
        b"\xff\xff\xff\xfftEXtKey\0text",
    ],
)
def test_what_makes_no_sense_is_passed_over(stored):
    assert found(stored) == []


def test_of_many_the_first_are_read():
    assert len(found(*[chunk(b"tEXt", b"Key\0text")] * 100)) == 64


def test_other_formats_have_none():
    assert list(png_texts(b"GIF89a" + chunk(b"tEXt", b"Key\0text"), 1000)) == []
