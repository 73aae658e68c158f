"""No place leaves with a result unless it is asked for: from every source, to every written format."""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serve_app.contracts import ColorProfile, OutputFormat
from serve_app.imaging.codec import decode
from serve_app.imaging.encode import Look, encode
from serve_app.imaging.traits import Traits
from serve_app.levels import from_levels
from serve_app.settings import ImageLimits

MARK = b"Hidden-Hill"
ASCII, UNDEFINED, LONG = 2, 7, 4
XMP = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:e="http://ns.adobe.com/exif/1.0/" xmlns:p="http://ns.adobe.com/photoshop/1.0/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" e:GPSLatitude="{MARK.decode()}" p:City="{MARK.decode()}"
 dc:creator="Ada"/></rdf:RDF></x:xmpmeta>""".encode()


def exif_block() -> bytes:
    """A maker, a place, and a small picture of how it looked before, which names the place, too."""
    entries = [(0x010F, ASCII, b"Cam\0"), (0x8825, LONG, None)]
    place = b"ASCII\0\0\0" + MARK
    first, gps_at = 8, 8 + 2 + 12 * len(entries) + 4
    texts_at = gps_at + 2 + 12 + 4
    small_at = texts_at + len(place)
    block = b"II*\0" + struct.pack("<I", first) + struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        count, stored = (4, value) if value else (1, struct.pack("<I", gps_at))
        block += struct.pack("<HHI", tag, kind, count) + stored
    block += struct.pack("<I", small_at)
    block += struct.pack("<HHHIII", 1, 28, UNDEFINED, len(place), texts_at, 0) + place
    picture_at = small_at + 2 + 24 + 4
    block += struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, LONG, 1, picture_at)
    return block + struct.pack("<HHIII", 0x0202, LONG, 1, len(MARK), 0) + MARK


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


@cache
def source(kind: str) -> bytes:
    image = Image.fromarray(np.full((24, 32, 3), (90, 120, 60), np.uint8))
    target, exif = io.BytesIO(), b"Exif\0\0" + exif_block()
    if kind == "jpeg":
        image.save(target, "JPEG", exif=exif, xmp=XMP)
        iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x10\x1c\x02\x5a\0\x0b" + MARK
        data = target.getvalue()
        return data[:2] + segment(0xED, iptc) + segment(0xE2, b"MPF\0" + MARK) + data[2:]
    if kind == "png":
        texts = PngInfo()
        texts.add_text("Location", MARK.decode())
        texts.add_text("Raw profile type exif", "\nexif\n      11\n" + MARK.hex(), zip=True)
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        image.save(target, "PNG", exif=exif_block(), pnginfo=texts)
    elif kind == "tiff":
        geo = {34853: {28: b"ASCII\0\0\0" + MARK}, 34737: MARK.decode(), 700: XMP}
        image.save(target, "TIFF", tiffinfo=geo)
    elif kind == "heic":
        pillow_heif.from_pillow(image).save(target, exif=exif, xmp=XMP)
    else:
        image.save(target, kind.upper(), exif=exif, xmp=XMP)
    return target.getvalue()


def results(kind: str, written: OutputFormat, *, keep_metadata: bool, keep_gps: bool) -> bytes:
    picture = decode(source(kind), ImageLimits())
    look = Look(
        written, 90, 8, ColorProfile.SOURCE, keep_metadata, keep_gps, picture.traits, {"seed": 7}
    )
    return encode(from_levels(picture.colour), None, look)


SOURCES = ["jpeg", "png", "tiff", "webp", "avif", "heic"]


@pytest.mark.parametrize("kind", SOURCES)
def test_the_sources_name_the_place(kind: str) -> None:
    assert MARK in source(kind)
    traits = decode(source(kind), ImageLimits()).traits
    assert traits != Traits(gray=False, bit_depth=8)
    assert MARK in (traits.exif or b"") + (traits.xmp or b"")


@pytest.mark.parametrize("written", list(OutputFormat))
@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("keep_metadata", [True, False])
def test_no_place_leaves(kind: str, written: OutputFormat, keep_metadata: bool) -> None:
    data = results(kind, written, keep_metadata=keep_metadata, keep_gps=False)
    assert MARK not in data
    assert MARK.hex().encode() not in data
    assert (b"Ada" in data) is keep_metadata


@pytest.mark.parametrize("written", list(OutputFormat))
@pytest.mark.parametrize("kind", SOURCES)
def test_it_is_kept_where_that_is_asked_for(kind: str, written: OutputFormat) -> None:
    assert MARK in results(kind, written, keep_metadata=True, keep_gps=True)
