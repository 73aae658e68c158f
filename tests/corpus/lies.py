"""Files that contradict themselves: sizes stated twice, places past the end, chains that bite their tail."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.corpus.case import EITHER, REFUSED, Case, bad
from tests.corpus.originals import original
from tests.corpus.parts import (
    LONG,
    SHORT,
    chunk,
    gif,
    gif_frame,
    ihdr,
    picture_entries,
    png,
    riff,
    tiff,
    vp8x,
    webp_chunk,
)

_KIND = "lying header"


def cases() -> Iterator[Case]:
    """Lies of each format."""
    yield from _png()
    yield from _jpeg()
    yield from _webp_and_gif()
    yield from _tiff()
    yield from _bmp()
    yield from _heif()


def _png() -> Iterator[Case]:
    few = zlib.compress(bytes(25 * 4))
    yield bad(_KIND, "png-half-of-its-rows", png(ihdr(8, 8), few), REFUSED)
    yield bad(
        _KIND, "png-one-row-of-1000", png(ihdr(1000, 1000), zlib.compress(bytes(3001))), REFUSED
    )
    yield bad(
        _KIND, "png-more-than-its-rows", png(ihdr(8, 8), zlib.compress(bytes(25 * 99))), EITHER
    )
    yield bad(_KIND, "png-size-zero", png(ihdr(0, 8), few), REFUSED)
    yield bad(_KIND, "png-width-over-31-bits", png(ihdr(2**32 - 1, 1), few), REFUSED)
    yield bad(_KIND, "png-3-bits", png(ihdr(8, 8, 3), few), REFUSED)
    yield bad(_KIND, "png-colour-type-5", png(ihdr(8, 8, 8, 5), few), REFUSED)
    yield bad(_KIND, "png-palette-missing", png(ihdr(8, 8, 8, 3), zlib.compress(bytes(72))), EITHER)
    pixels = zlib.compress(b"\0\xff\xff\xff\xff\xff\xff\xff\xff" * 8)
    short = chunk(b"PLTE", b"\1\2\3")
    yield bad(_KIND, "png-index-over-its-palette", png(ihdr(8, 8, 8, 3), pixels, short), EITHER)
    second = png(ihdr(8, 8), zlib.compress(bytes(25 * 8)), ihdr(2000, 2000))
    yield bad(_KIND, "png-two-headers", second, EITHER)
    length = original("png")
    at = length.index(b"IDAT") - 4
    yield bad(
        _KIND, "png-chunk-of-2-gb", length[:at] + b"\x7f\xff\xff\xff" + length[at + 4 :], REFUSED
    )
    yield bad(
        _KIND, "png-filter-9", png(ihdr(8, 8), zlib.compress(b"\x09" + bytes(24)) * 8), REFUSED
    )
    yield bad(_KIND, "png-no-pixels", png(ihdr(8, 8), b""), REFUSED)


def _jpeg() -> Iterator[Case]:
    whole = original("jpeg")
    at = whole.index(b"\xff\xc0") + 5
    for name, height, width in (("taller", 1900, 64), ("wider", 48, 1900), ("smaller", 8, 8)):
        sides = struct.pack(">HH", height, width)
        yield bad(_KIND, f"jpeg-{name}-than-its-data", whole[:at] + sides + whole[at + 4 :], EITHER)
    yield bad(_KIND, "jpeg-height-zero", whole[:at] + bytes(2) + whole[at + 2 :], REFUSED)
    frame = whole[at - 5 : at + 14]
    tall = frame[:5] + struct.pack(">HH", 2000, 2000) + frame[9:]
    yield bad(_KIND, "jpeg-two-frame-headers", whole[: at - 5] + tall + whole[at - 5 :], EITHER)
    yield bad(_KIND, "jpeg-7-components", whole[: at + 4] + b"\7" + whole[at + 5 :], REFUSED)
    scan = whole.index(b"\xff\xda")
    yield bad(_KIND, "jpeg-no-tables", whole[:2] + frame + whole[scan:], EITHER)
    many = whole[:scan] + whole[scan:-2] * 100 + whole[-2:]
    yield bad(_KIND, "jpeg-100-scans", many, EITHER)
    yield bad(_KIND, "jpeg-12-bit", whole[: at - 1] + b"\x0c" + whole[at:], REFUSED)


def _webp_and_gif() -> Iterator[Case]:
    inner = original("webp")[12:]
    for name, height, width in (("larger", 1900, 1900), ("smaller", 8, 8)):
        yield bad(
            _KIND, f"webp-canvas-{name}-than-frame", riff(vp8x(width, height), inner), REFUSED
        )
    yield bad(_KIND, "webp-alpha-claimed-not-there", riff(vp8x(64, 48, 0x10), inner), EITHER)
    whole = original("webp")
    yield bad(_KIND, "webp-riff-of-4-gb", whole[:4] + b"\xfe\xff\xff\xff" + whole[8:], EITHER)
    yield bad(_KIND, "webp-riff-of-0", whole[:4] + bytes(4) + whole[8:], EITHER)
    yield bad(_KIND, "webp-chunk-of-4-gb", whole[:16] + b"\xfe\xff\xff\xff" + whole[20:], REFUSED)
    animated = riff(vp8x(64, 48, 2), webp_chunk(b"ANIM", bytes(6)))
    yield bad(_KIND, "webp-animation-of-no-frames", animated, REFUSED)
    outside = gif_frame(left=60_000, top=60_000)
    yield bad(_KIND, "gif-frame-far-outside", gif(8, 8, outside), EITHER)
    yield bad(_KIND, "gif-no-frames", gif(8, 8, b""), REFUSED)
    yield bad(_KIND, "gif-size-zero", gif(0, 0, gif_frame()), EITHER)
    yield bad(_KIND, "gif-frame-size-zero", gif(8, 8, gif_frame(0, 0)), EITHER)
    code = gif_frame().replace(b"\2\2\x44\1\0", b"\x0d\2\x44\1\0")
    yield bad(_KIND, "gif-codes-of-13-bits", gif(1, 1, code), REFUSED)


def _tiff() -> Iterator[Case]:
    gray = {"bits": (8,)}
    loop = tiff(picture_entries(9, 9, **gray), bytes(81), next_directory=8)
    yield bad("loop", "tiff-directory-after-itself", loop, EITHER)
    subs = tiff([*picture_entries(9, 9, **gray), (330, LONG, [8])], bytes(81))
    yield bad("loop", "tiff-directory-inside-itself", subs, EITHER)
    exifs = tiff([*picture_entries(9, 9, **gray), (34665, LONG, [8])], bytes(81))
    yield bad("loop", "tiff-exif-is-the-directory", exifs, EITHER)
    bigs = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + struct.pack("<Q", 0) + struct.pack("<Q", 16)
    yield bad("loop", "bigtiff-empty-directory-after-itself", bigs, REFUSED)
    past = tiff(picture_entries(9, 9, **gray, offset=10**9), bytes(81))
    yield bad(_KIND, "tiff-strip-past-the-end", past, REFUSED)
    yield bad(
        _KIND,
        "tiff-directory-past-the-end",
        b"II*\0" + struct.pack("<I", 2**31) + bytes(99),
        REFUSED,
    )
    negative = tiff(picture_entries(9, 9, **gray, strip_bytes=-81), bytes(81))
    yield bad(_KIND, "tiff-strip-of-minus-81-bytes", negative, EITHER)
    rows = tiff(picture_entries(9, 9, **gray, rows=0), bytes(81))
    yield bad(_KIND, "tiff-strips-of-no-rows", rows, EITHER)
    yield bad(_KIND, "tiff-size-zero", tiff(picture_entries(0, 9, **gray), bytes(81)), REFUSED)
    short = tiff(picture_entries(1000, 1000), bytes(99))
    yield bad(_KIND, "tiff-a-hundred-bytes-of-3-mb", short, REFUSED)
    unknown = tiff(picture_entries(9, 9, **gray, compression=31337), bytes(81))
    yield bad(_KIND, "tiff-unknown-compression", unknown, REFUSED)
    ink = tiff(picture_entries(9, 9, **gray, photometric=999), bytes(81))
    yield bad(_KIND, "tiff-unknown-colours", ink, REFUSED)
    none = [entry for entry in picture_entries(9, 9, **gray) if entry[0] not in (273, 279)]
    yield bad(_KIND, "tiff-no-strips", tiff(none, bytes(81)), REFUSED)
    mapped = tiff([*picture_entries(9, 9, **gray, photometric=3), (320, SHORT, [1, 2])], bytes(81))
    yield bad(_KIND, "tiff-palette-too-short", mapped, EITHER)
    jpeg = tiff(picture_entries(48, 64, compression=7, strip_bytes=10**6), original("jpeg"))
    yield bad(_KIND, "tiff-jpeg-of-another-size", jpeg, EITHER)
    yield bad(
        _KIND, "tiff-directory-of-65535-entries", b"II*\0\x08\0\0\0\xff\xff" + bytes(99), REFUSED
    )


def _bmp() -> Iterator[Case]:
    whole = original("bmp")
    bent = {
        "width-negative": (18, struct.pack("<i", -64)),
        "height-least": (22, struct.pack("<i", -(2**31))),
        "size-zero": (18, bytes(8)),
        "7-bits": (28, b"\7\0"),
        "pixels-past-the-end": (10, struct.pack("<I", 10**9)),
        "unknown-compression": (30, struct.pack("<I", 99)),
        "header-of-2-gb": (14, struct.pack("<I", 2**31 - 1)),
        "larger-than-its-data": (18, struct.pack("<ii", 1900, 1900)),
    }
    for name, (at, value) in bent.items():
        data = whole[:at] + value + whole[at + len(value) :]
        yield bad(_KIND, f"bmp-{name}", data, EITHER if name == "header-of-2-gb" else REFUSED)


def _heif() -> Iterator[Case]:
    for kind in ("avif", "heic"):
        whole = original(kind)
        at = whole.index(b"ispe") + 8
        larger = whole[:at] + struct.pack(">II", 1900, 1900) + whole[at + 8 :]
        yield bad(_KIND, f"{kind}-ispe-larger-than-its-data", larger, EITHER)
        zero = whole[:at] + bytes(8) + whole[at + 8 :]
        yield bad(_KIND, f"{kind}-ispe-zero", zero, REFUSED)
        at = whole.index(b"pitm") + 8
        missing = whole[:at] + b"\0\x63" + whole[at + 2 :]
        yield bad(_KIND, f"{kind}-main-picture-missing", missing, REFUSED)
        at = whole.index(b"meta") - 4
        endless = whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :]
        yield bad(_KIND, f"{kind}-meta-of-4-gb", endless, REFUSED)
        at = whole.index(b"mdat") + 4
        noise = np.random.default_rng(1).bytes(len(whole) - at)
        yield bad(_KIND, f"{kind}-noise-for-pixels", whole[:at] + noise, EITHER)
