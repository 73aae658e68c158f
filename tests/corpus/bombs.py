"""Small files that ask for gigabytes: of pixels, of inflated text, of samples a pixel, of pieces."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.corpus.case import BROKEN, EITHER, REFUSED, TOO_LARGE, UNSUPPORTED, Case, bad, good
from tests.corpus.originals import PHOTO, original, saved
from tests.corpus.parts import (
    LONG,
    SHORT,
    box,
    chunk,
    deflated_zeros,
    gif,
    gif_frame,
    ihdr,
    picture_entries,
    png,
    riff,
    segment,
    tiff,
    vp8x,
    webp_chunk,
)

_KIND = "bomb"
_GIANT = 50_000
_TOO_LARGE = {TOO_LARGE}


def cases() -> Iterator[Case]:
    """Bombs of each format."""
    yield from _png()
    yield from _tiff()
    yield from _webp_and_gif()
    yield from _heif()
    yield from _scans()
    sides = struct.pack(">BHHB", 8, 65500, 65500, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    jpeg = (
        b"\xff\xd8" + segment(0xC0, sides) + segment(0xDA, b"\3\1\0\2\0\3\0\0\x3f\0") + b"\xff\xd9"
    )
    yield bad(_KIND, "jpeg-65500x65500", jpeg, _TOO_LARGE)
    header = struct.pack("<IiiHHIIiiII", 40, _GIANT, _GIANT, 1, 24, 0, 0, 0, 0, 0, 0)
    bmp = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header
    yield bad(_KIND, "bmp-50000x50000", bmp, _TOO_LARGE)
    runs = b"\xff\0" * 100_000 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, 1000, 1000, 1, 8, 1, len(runs), 0, 0, 2, 0)
    palette = b"\0\0\0\0\xff\xff\xff\0"
    bmp = b"BM" + struct.pack("<IHHI", 62 + len(runs), 0, 0, 62) + header + palette + runs
    yield bad(_KIND, "bmp-runs-over-the-end", bmp, EITHER)


def _scans() -> Iterator[Case]:
    """Each scan of a progressive picture goes over all of its blocks, and takes some ten bytes."""
    whole = saved(Image.new("L", (1900, 1900), 128), "jpeg", progressive=True)
    first = whole.index(b"\xff\xda")
    at = whole.index(b"\xff", first + 10)
    again = whole[first : first + 10] + b"\0"
    for count in (50, 5_000, 65_535):
        data = whole[:at] + again * count + whole[at:]
        yield bad(_KIND, f"jpeg-{count}-progressive-scans", data, EITHER)


def _png() -> Iterator[Case]:
    bits = png(ihdr(_GIANT, _GIANT, 1, 0), deflated_zeros(299))
    yield bad(_KIND, "png-50000x50000-1-bit", bits, _TOO_LARGE)
    deep = png(ihdr(_GIANT, _GIANT, 16, 6), deflated_zeros(1024))
    yield bad(_KIND, "png-50000x50000-16-bit-rgba", deep, _TOO_LARGE)
    widest = png(ihdr(2**31 - 1, 2**31 - 1), deflated_zeros(1))
    yield bad(_KIND, "png-2147483647-squared", widest, REFUSED)
    yield bad(
        _KIND, "png-gigabyte-of-pixels-too-many", png(ihdr(8, 8), deflated_zeros(1024)), EITHER
    )
    zeros, row = deflated_zeros(512), zlib.compress(bytes(8 * 25))
    small = ihdr(8, 8)
    yield bad(_KIND, "png-ztxt", png(small, row, chunk(b"zTXt", b"a\0\0" + zeros)), EITHER)
    text = chunk(b"iTXt", b"a\0\1\0\0\0" + zeros)
    yield bad(_KIND, "png-itxt", png(small, row, text), EITHER)
    yield bad(_KIND, "png-iccp", png(small, row, chunk(b"iCCP", b"a\0\0" + zeros)), EITHER)
    many = chunk(b"zTXt", b"a\0\0" + deflated_zeros(1)) * 200
    yield bad(_KIND, "png-200-ztxt", png(small, row, many), EITHER)


def _tiff() -> Iterator[Case]:
    yield bad(
        _KIND, "tiff-60000x60000", tiff(picture_entries(60_000, 60_000), bytes(99)), _TOO_LARGE
    )
    zeros = deflated_zeros(512)
    entries = picture_entries(100, 100, compression=8, strip_bytes=len(zeros))
    yield bad(_KIND, "tiff-deflate", tiff(entries, zeros), EITHER)
    giant = picture_entries(100, 100, strip_bytes=2**32 - 1)
    yield bad(_KIND, "tiff-strip-of-4-gb", tiff(giant, bytes(30_000)), EITHER)
    packed = b"\x81\0" * 500_000
    entries = picture_entries(100, 100, compression=32773, strip_bytes=len(packed))
    yield bad(_KIND, "tiff-packbits", tiff(entries, packed), EITHER)
    lzw = b"\x80\0\x20\x50\x38" * 100_000
    entries = picture_entries(100, 100, compression=5, strip_bytes=len(lzw))
    yield bad(_KIND, "tiff-lzw", tiff(entries, lzw), EITHER)
    entries = picture_entries(1000, 1000, bits=(8,) * 3, samples=65_535)
    yield bad(_KIND, "tiff-65535-samples-a-pixel", tiff(entries, bytes(99)), REFUSED)
    entries = picture_entries(1000, 1000, bits=(64, 64, 64))
    yield bad(_KIND, "tiff-64-bit-samples", tiff(entries, bytes(99)), REFUSED)
    tiled = [entry for entry in picture_entries(100, 100) if entry[0] not in (273, 278, 279)]
    sides = [(322, LONG, [2**20]), (323, LONG, [2**20])]
    tiled += [*sides, (324, LONG, [-1]), (325, LONG, [30_000])]
    yield bad(_KIND, "tiff-tile-of-a-terapixel", tiff(tiled, bytes(30_000)), REFUSED)
    strips = [entry for entry in picture_entries(1000, 1000) if entry[0] not in (273, 278, 279)]
    strips += [(273, LONG, [8] * 10**6), (278, LONG, [1]), (279, LONG, [1] * 10**6)]
    yield bad(_KIND, "tiff-million-strips", tiff(strips), EITHER)
    chain = b"".join(
        struct.pack("<HHHIII", 1, 256, SHORT, 1, 9, at) for at in range(26, 18 * 50_000, 18)
    )
    yield bad(_KIND, "tiff-50000-directories", b"II*\0\x08\0\0\0" + chain + bytes(18), REFUSED)
    nested = tiff([*picture_entries(9, 9, bits=(8,)), (330, LONG, [8] * 100_000)], bytes(81))
    yield bad(_KIND, "tiff-100000-directories-inside-itself", nested, EITHER)
    claimed = [*picture_entries(10, 10), (65000, SHORT, [0])]
    data = bytearray(tiff(claimed, bytes(300)))
    at = data.rindex(struct.pack("<HH", 65000, SHORT)) + 4
    data[at : at + 4] = struct.pack("<I", 2**32 - 1)
    yield bad(_KIND, "tiff-tag-of-8-gb", bytes(data), EITHER)


def _webp_and_gif() -> Iterator[Case]:
    canvas = riff(vp8x(2**24, 2**24), webp_chunk(b"VP8L", b"\x2f" + bytes(20)))
    yield bad(_KIND, "webp-canvas-of-2-to-the-48", canvas, REFUSED)
    sides = b"\x2f" + struct.pack("<I", 16382 | 16382 << 14)
    lossless = riff(webp_chunk(b"VP8L", sides + bytes(60)))
    yield bad(_KIND, "webp-lossless-16383x16383", lossless, _TOO_LARGE)
    lossy = riff(webp_chunk(b"VP8 ", b"\x30\1\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(60)))
    yield bad(_KIND, "webp-lossy-16383x16383", lossy, _TOO_LARGE)
    animated = riff(vp8x(16_000, 16_000, 2), webp_chunk(b"ANIM", bytes(6)))
    yield bad(_KIND, "webp-animated-16000x16000", animated, REFUSED)
    yield bad(_KIND, "gif-canvas-65535x65535", gif(65_535, 65_535, gif_frame()), _TOO_LARGE)
    frame = gif_frame(65_535, 65_535)
    yield bad(_KIND, "gif-frame-larger-than-canvas", gif(8, 8, frame), REFUSED)


def _heif() -> Iterator[Case]:
    for kind in ("avif", "heic"):
        whole = original(kind)
        at = whole.index(b"ispe") + 8
        giant = whole[:at] + struct.pack(">II", 60_000, 60_000) + whole[at + 8 :]
        yield bad(_KIND, f"{kind}-ispe-60000x60000", giant, REFUSED)
        wide = whole[:at] + struct.pack(">II", 2**32 - 1, 2**32 - 1) + whole[at + 8 :]
        yield bad(_KIND, f"{kind}-ispe-of-2-to-the-64", wide, REFUSED)
        yield bad(_KIND, f"{kind}-grid-256x256", grid(kind, 65_000, 65_000, 256, 256), REFUSED)
        tiled = grid(kind, 255 * 8, 255 * 7, 255, 255)
        yield bad(_KIND, f"{kind}-grid-of-one-tile-65025-times", tiled, EITHER)
        four = np.tile(PHOTO, (2, 2, 1))
        yield good("rare layout", f"{kind}-grid-of-four", grid(kind, 96, 128, 2, 2), four, 12)
        for name, parts in (("itself", [2] * 4), ("one-of-four", [1]), ("none", [])):
            data = grid(kind, 96, 128, 2, 2, parts)
            yield bad(_KIND, f"{kind}-grid-of-{name}", data, EITHER)
        deep = box(b"ftyp", b"avif" if kind == "avif" else b"heic") + box(b"meta", _nested(2000))
        yield bad(_KIND, f"{kind}-boxes-2000-deep", deep, {BROKEN, UNSUPPORTED})


def _nested(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        body = box(b"meta", body, 0)
    return body


def grid(
    kind: str, height: int, width: int, rows: int, columns: int, parts: list[int] | None = None
) -> bytes:
    """A picture put together of one tile, again and again, within the original's container.

    The tile is item 1 and the picture item 2; `parts` are the items that it says it is put together of.
    """
    brand, coding = (b"avif", b"av01") if kind == "avif" else (b"heic", b"hvc1")
    whole = original(kind)
    properties = _body_of(whole, b"ipco")
    tile = _body_of(whole, b"mdat")
    listed = [1] * (rows * columns) if parts is None else parts
    last = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)
    items = box(b"infe", struct.pack(">HH", 1, 0) + coding + b"\0", 2)
    items += box(b"infe", struct.pack(">HH", 2, 0) + b"grid\0", 2)
    kinds = box(b"iinf", struct.pack(">H", 2) + items, 0)
    ids = struct.pack(">HH", 2, len(listed) % 2**16) + struct.pack(f">{len(listed)}H", *listed)
    references = box(b"iref", box(b"dimg", ids), 0)
    own = box(b"ispe", struct.pack(">II", width, height), 0)
    known = _count(properties)
    first = bytes([known]) + bytes(range(1, known + 1))
    links = struct.pack(">I", 2) + b"\0\1" + first + b"\0\2\1" + bytes([known + 1])
    shown = box(b"iprp", box(b"ipco", properties + own) + box(b"ipma", links, 0))

    def meta(at: int) -> bytes:
        places = struct.pack(">BBH", 0x44, 0, 2)
        places += struct.pack(">HHHHII", 1, 0, 0, 1, at, len(tile))
        places += struct.pack(">HHHHII", 2, 1, 0, 1, 0, len(last))
        handler = box(b"hdlr", bytes(4) + b"pict" + bytes(13), 0)
        main = box(b"pitm", struct.pack(">H", 2), 0)
        where = box(b"iloc", places, 1)
        inside = handler + main + where + kinds + references + shown + box(b"idat", last)
        return box(b"meta", inside, 0)

    head = box(b"ftyp", brand + bytes(4) + b"mif1miaf" + brand)
    at = len(head) + len(meta(0)) + 8
    return head + meta(at) + box(b"mdat", tile)


def _body_of(whole: bytes, kind: bytes) -> bytes:
    at = whole.index(kind) - 4
    (length,) = struct.unpack_from(">I", whole, at)
    return whole[at + 8 : at + length]


def _count(boxes: bytes) -> int:
    found, at = 0, 0
    while at < len(boxes):
        at += int.from_bytes(boxes[at : at + 4], "big")
        found += 1
    return found
