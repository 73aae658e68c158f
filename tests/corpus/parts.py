"""What files are built of, by hand: no encoder would write what the corpus needs. Bytes only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
BYTE, ASCII, SHORT, LONG, UNDEFINED = 1, 2, 3, 4, 7
_CODES = {BYTE: "B", SHORT: "H", LONG: "I"}
_BLOCK_BYTES = 2**20


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def ihdr(
    width: int, height: int, depth: int = 8, colour_type: int = 2, interlaced: int = 0
) -> bytes:
    """A PNG's first chunk."""
    body = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    return chunk(b"IHDR", body)


def png(header: bytes, pixels: bytes, before: bytes = b"") -> bytes:
    """A PNG around compressed `pixels`; `before` are chunks between header and pixels."""
    return PNG_MAGIC + header + before + chunk(b"IDAT", pixels) + chunk(b"IEND")


def deflated_zeros(mebibytes: int) -> bytes:
    """A zlib stream of zeros, a thousandth of its size; made without compressing them all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(_BLOCK_BYTES)) + packer.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    checksum = (mebibytes * _BLOCK_BYTES % 65521) << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + block * mebibytes + end + struct.pack(">I", checksum)


Entry = tuple[int, int, Sequence[int] | bytes]


def tiff(entries: Sequence[Entry], data: bytes = b"", next_directory: int = 0) -> bytes:
    """A little-endian TIFF of one directory, which lies at 8.

    Args:
        entries: Tag, type and values of each. In the values of tag 273 (StripOffsets) and 324 (TileOffsets), -1
            stands for where `data` lies.
        data: What follows the directory.
        next_directory: Where the next one is said to lie.
    """
    spare = 8 + 2 + 12 * len(entries) + 4
    places, rest = [], b""
    data_at = spare + sum(len(_packed(e)) + 3 & ~3 for e in entries if len(_packed(e)) > 4)
    for tag, kind, values in sorted(entries, key=lambda entry: entry[0]):
        if not isinstance(values, bytes):
            values = [data_at if value == -1 else value for value in values]
        body = _packed((tag, kind, values))
        count = len(values)
        if len(body) > 4:
            place = struct.pack("<I", spare + len(rest))
            rest += body + bytes(-len(body) % 4)
        else:
            place = body.ljust(4, b"\0")
        places.append(struct.pack("<HHI", tag, kind, count) + place)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(places)
    return head + struct.pack("<I", next_directory) + rest + data


def _packed(entry: Entry) -> bytes:
    _, kind, values = entry
    if isinstance(values, bytes):
        return values
    return struct.pack(f"<{len(values)}{_CODES[kind]}", *(value % 2**32 for value in values))


def picture_entries(
    height: int,
    width: int,
    bits: Sequence[int] = (8, 8, 8),
    compression: int = 1,
    strip_bytes: int | None = None,
    **others: int,
) -> list[Entry]:
    """The entries of a plain strip; `others` by their name below, laid over them."""
    named = {"photometric": 262, "offset": 273, "samples": 277, "rows": 278, "planar": 284}
    size = height * width * sum(bits) // 8 if strip_bytes is None else strip_bytes
    values = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, list(bits)),
        259: (SHORT, [compression]),
        262: (SHORT, [2 if len(bits) >= 3 else 1]),
        273: (LONG, [-1]),
        277: (SHORT, [len(bits)]),
        278: (LONG, [height]),
        279: (LONG, [size]),
        284: (SHORT, [1]),
    }
    for name, value in others.items():
        values[named[name]] = (values[named[name]][0], [value])
    return [(tag, kind, given) for tag, (kind, given) in values.items()]


def gif(width: int, height: int, frames: bytes) -> bytes:
    """A GIF with a palette of two colours, red and blue."""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + b"\xff\0\0\0\0\xff"
        + frames
        + b";"
    )


def gif_frame(width: int = 1, height: int = 1, left: int = 0, top: int = 0) -> bytes:
    """A frame whose data are one red pixel, however large it says it is."""
    place = struct.pack("<HHHHB", left, top, width, height, 0)
    return b"\x21\xf9\4\0\1\0\0\0" + b"," + place + b"\2\2\x44\1\0"


def box(kind: bytes, body: bytes = b"", version: int | None = None, flags: int = 0) -> bytes:
    """A box of ISO base media; a full one where a version is given."""
    full = b"" if version is None else struct.pack(">I", version << 24 | flags)
    return struct.pack(">I", 8 + len(full) + len(body)) + kind + full + body


def riff(*chunks: bytes) -> bytes:
    """A WebP of chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk, padded to an even length."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    """The canvas of an extended WebP."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def segment(marker: int, body: bytes) -> bytes:
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
