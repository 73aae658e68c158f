"""What the tests of written files share: looks, metadata of a camera, and profiles made by hand."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyvips
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from serve_app.contracts import ColorProfile, OutputFormat
from serve_app.imaging.encode import Look
from serve_app.imaging.traits import Traits

PROVENANCE = {
    "version": "0.1.0",
    "model": "mini",
    "revision": "abc",
    "seed": 2**62 + 1,
    "parameters": {"prompt": 'a <b> & "é" \ud800\x00', "steps": 4, "scale": 2.5, "keep_gps": False},
}

XMP = b"""<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:drone="http://www.dji.com/drone-dji/1.0/"
 exif:GPSLatitude="52,31.2N" tiff:Orientation="6" tiff:ImageWidth="8" xmp:CreatorTool="Camera 1"
 drone:GpsLongtitude="13.4">
<dc:rights>Ada &amp; Bob</dc:rights><exif:GPSLongitude>13,24.5E</exif:GPSLongitude>
<exif:PixelXDimension>8</exif:PixelXDimension>
<xmp:Thumbnails><rdf:Alt><rdf:li>small</rdf:li></rdf:Alt></xmp:Thumbnails>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end='w'?>"""


def camera_exif() -> bytes:
    """A block as a phone writes it: turned, with a place, a thumbnail's directory and a maker's note."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0131], exif[0x0111] = "Cam", 6, "Firmware 1", 1234
    shot = exif.get_ifd(0x8769)
    shot[0x9003], shot[0xA002], shot[0xA003] = "2020:01:01 00:00:00", 8, 6
    shot[0x829A], shot[0x9204], shot[0x927C] = IFDRational(1, 250), -0.5, b"maker's secret"
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "N", (52.0, 31.0, 12.5)
    return exif.tobytes()[6:]


def look(kind: OutputFormat = OutputFormat.PNG, **given: Any) -> Look:
    """A look; traits' names are taken, too."""
    names = ("gray", "bit_depth_found", "icc", "exif", "xmp")
    found = {name.removesuffix("_found"): given.pop(name) for name in names if name in given}
    defaults: dict[str, Any] = {
        "quality": 92,
        "bit_depth": None,
        "color_profile": ColorProfile.SOURCE,
        "keep_metadata": True,
        "keep_gps": False,
        "provenance": {},
    }
    return Look(output_format=kind, traits=Traits(**found), **defaults | given)


def p3() -> bytes:
    profile: bytes = pyvips.Operation.call("profile_load", "p3")
    return profile


def srgb() -> bytes:
    profile: bytes = pyvips.Operation.call("profile_load", "srgb")
    return profile


def endless_profile(elements: int) -> bytes:
    """Display P3 whose way from other colours leads through as many elements, each the same few bytes.

    Source: ICC.1:2022, 10.16 (multiProcessElementsType), whose table may name one place again and again.
    """
    whole = p3()
    (count,) = struct.unpack_from(">I", whole, 128)
    found = (struct.unpack_from(">4sII", whole, 132 + 12 * at) for at in range(count))
    tags = {name: whole[start : start + length] for name, start, length in found}
    one = b"matf\0\0\0\0" + struct.pack(">HH12f", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1e-4, 0, 0)
    place = struct.pack(">II", 16 + 8 * elements, len(one))
    tags[b"B2D1"] = b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, elements) + place * elements + one
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = struct.pack(">I", start + len(body))
    return size + whole[4:8] + b"\x04\x30\0\0" + whole[12:128] + table + body


def gray_profile(gamma: float) -> bytes:
    """A profile of one channel with a plain power curve. Source: ICC.1:2001-04."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    white = fixed(0.9642, 1, 0.8249)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"gray\0" + b"\0" * 78
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = [
        (b"desc", text + b"\0" * (-len(text) % 4)),
        (b"cprt", b"text\0\0\0\0none\0\0\0\0"),
        (b"wtpt", b"XYZ \0\0\0\0" + white),
        (b"kTRC", curve),
    ]
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    return (head + b"\0" * 12 + b"acsp" + b"\0" * 28 + white).ljust(128, b"\0") + table + body


def colours(height: int = 40, width: int = 56) -> np.ndarray:
    """Random colours that 16 bits hold exactly."""
    levels = np.random.default_rng(3).integers(0, 65536, (height, width, 3))
    return (levels / np.float32(65535)).astype(np.float32)


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    """A soft picture that lossy formats keep near."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([x / width, y / height, (x + y) / (height + width)], axis=2)
