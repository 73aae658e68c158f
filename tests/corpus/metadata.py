"""Good pixels in bad company: huge, looping, broken or hostile profiles, EXIF, XMP and texts."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from tests.corpus.case import EITHER, Case, bad, good
from tests.corpus.originals import PHOTO, TOLERANCE, original, saved
from tests.corpus.parts import PNG_MAGIC, chunk, segment
from tests.unit.imaging.results import endless_profile

_KIND = "huge metadata"
_BYTES = 4 * 2**20
_EXIF = b"Exif\0\0"
_LOSSY = TOLERANCE["jpeg"]


def cases() -> Iterator[Case]:
    """Metadata that must not cost the picture, and some that may."""
    yield from _huge()
    yield from _loops()
    yield from _profiles()


def _huge() -> Iterator[Case]:
    noise = np.random.default_rng(5).bytes(_BYTES)
    letters = b"a" * _BYTES
    yield _png("png-text-of-4-mib", chunk(b"tEXt", b"Comment\0" + letters))
    yield _png("png-exif-of-4-mib", chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0" + noise))
    yield _png("png-unknown-chunk-of-4-mib", chunk(b"teSt", noise))
    yield _png("png-1000-texts", chunk(b"tEXt", b"a\0b") * 1000)
    many = chunk(b"tEXt", b"a\0b") * 200_000
    yield bad(_KIND, "png-200000-texts", _before_pixels(many), EITHER)
    yield bad(_KIND, "png-profile-of-4-mib", _before_pixels(_iccp(_profile() + noise)), EITHER)
    jpeg = original("jpeg")
    for name, piece in (
        ("60-comments-of-64-kib", segment(0xFE, noise[:65_000]) * 60),
        ("60-exifs-of-64-kib", segment(0xE1, _EXIF + noise[:65_000]) * 60),
        ("10000-empty-comments", segment(0xFE, b"") * 10_000),
        ("padding-of-4-mib", b"\xff" * _BYTES),
    ):
        data = jpeg[:2] + piece + jpeg[2:]
        yield bad(_KIND, f"jpeg-{name}", data, EITHER)
    pieces = [
        segment(0xE2, b"ICC_PROFILE\0" + bytes([number, 64]) + noise[:65_000])
        for number in range(1, 65)
    ]
    yield bad(_KIND, "jpeg-profile-of-4-mib", jpeg[:2] + b"".join(pieces) + jpeg[2:], EITHER)
    for kind in ("webp", "avif", "heic", "tiff"):
        data = saved(Image.fromarray(PHOTO), kind, exif=_exif_of(noise[:_BYTES]))
        yield bad(_KIND, f"{kind}-exif-of-4-mib", data, EITHER)


def _exif_of(body: bytes) -> bytes:
    """EXIF with a maker note of `body`."""
    at = 8 + 2 + 12 + 4
    entry = struct.pack("<HHII", 0x927C, 7, len(body), at)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + body


def _loops() -> Iterator[Case]:
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    looping = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8)
    gps = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x8825, 4, 1, 8) + bytes(4)
    past = b"II*\0" + struct.pack("<I", 2**31) + bytes(8)
    many = b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(24)
    large = (
        b"II*\0"
        + struct.pack("<IH", 8, 1)
        + struct.pack("<HHII", 0x0110, 2, 2**32 - 1, 8)
        + bytes(4)
    )
    odd = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x0112, 2, 1, 6) + bytes(4)
    for name, exif in (
        ("directory-inside-itself", looping),
        ("gps-is-the-directory", gps),
        ("directory-past-the-end", past),
        ("65535-entries", many),
        ("text-of-4-gb", large),
        ("orientation-as-text", odd),
        ("no-tiff-in-it", b"what is this"),
        ("empty", b""),
    ):
        jpeg = original("jpeg")
        data = jpeg[:2] + segment(0xE1, _EXIF + exif) + jpeg[2:]
        yield Case("broken exif", f"jpeg-{name}", data, frozenset({200}), None, None)
        png = _before_pixels(chunk(b"eXIf", exif))
        yield Case("broken exif", f"png-{name}", png, frozenset({200}), None, None)


def _profiles() -> Iterator[Case]:
    whole = _profile()
    noise = np.random.default_rng(6).bytes(3000)
    broken = {
        "noise": noise,
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "header-only": whole[:128],
        "of-ink-on-rgb": whole[:16] + b"CMYK" + whole[20:],
        "of-gray-on-rgb": whole[:16] + b"GRAY" + whole[20:],
        "of-4-gb": b"\xff\xff\xff\xff" + whole[4:],
        "tags-past-the-end": whole[:128]
        + b"\0\0\0\1desc\x7f\xff\xff\xff\x7f\xff\xff\xff"
        + bytes(40),
        "tags-million": whole[:128] + struct.pack(">I", 10**6) + whole[132:],
    }
    for name, profile in broken.items():
        yield good("broken profile", f"png-{name}", _before_pixels(_iccp(profile)), PHOTO, 3)
        mark = b"ICC_PROFILE\0\1\1" + profile
        jpeg = original("jpeg")
        data = jpeg[:2] + segment(0xE2, mark) + jpeg[2:]
        yield good("broken profile", f"jpeg-{name}", data, PHOTO, _LOSSY)
    endless = _before_pixels(_iccp(endless_profile(30_000)))
    yield good("broken profile", "png-way-out-of-30000-steps", endless, PHOTO, 60)
    bad_stream = chunk(b"iCCP", b"a\0\0not a zlib stream at all")
    yield Case("broken profile", "png-not-deflated", _before_pixels(bad_stream), EITHER, (48, 64))
    jpeg = original("jpeg")
    parts = [segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 5]) + whole[:200]) for n in (1, 1, 9, 0)]
    data = jpeg[:2] + b"".join(parts) + jpeg[2:]
    yield good("broken profile", "jpeg-parts-missing-and-double", data, PHOTO, _LOSSY)


@cache
def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"a\0\0" + zlib.compress(profile))


def _before_pixels(chunks: bytes) -> bytes:
    whole = original("png")
    head = len(PNG_MAGIC) + 25
    return whole[:head] + chunks + whole[head:]


def _png(name: str, chunks: bytes) -> Case:
    return good(_KIND, name, _before_pixels(chunks), PHOTO)
