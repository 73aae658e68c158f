"""The texts of a PNG, plain or compressed, so that what another program wrote anew is still found.

libvips, ImageMagick and libjxl store a text that they were given in a compressed chunk, and some a packet of
XMP as hexadecimal digits under a keyword of their own. This module refuses to know what texts mean. What makes
no sense is passed over, never an error.

Source: the PNG specification, third edition, 11.3.3; ImageMagick's coders/png.c ("Raw profile type").
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

XMP_KEYWORD = "XML:com.adobe.xmp"

_RAW = "Raw profile type "
_MOST_CHUNKS = 50_000
_MOST_TEXTS = 64


def png_texts(data: bytes, most_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Reads the texts of a PNG in their order, of at most 64.

    Args:
        data: The whole file; of another format it has none.
        most_bytes: Longer ones are passed over; none is unpacked further.

    Yields:
        A keyword and its text as stored. A packet of XMP has `XMP_KEYWORD`, however it was stored.
    """
    found = 0
    for kind, body in _chunks(data):
        text = _text(kind, body, most_bytes)
        if text is not None:
            yield text
            found += 1
            if found == _MOST_TEXTS:
                return


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8 if data.startswith(b"\x89PNG\r\n\x1a\n") else len(data)
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end <= len(data) and kind in (b"tEXt", b"zTXt", b"iTXt"):
            yield kind, data[at + 8 : end - 4]
        at = end


def _text(kind: bytes, body: bytes, most_bytes: int) -> tuple[str, bytes] | None:
    key, ended, rest = body.partition(b"\0")
    keyword, packed = key.decode("latin-1"), kind == b"zTXt"
    if not ended:
        return None
    if kind == b"zTXt":
        rest = rest[1:]  # the method, of which there is one
    elif kind == b"iTXt":
        parts = rest[2:].split(b"\0", 2)  # a language, the keyword in it, and the text
        if len(parts) < 3:
            return None
        packed, rest = rest[:1] == b"\1", parts[2]
    raw = keyword == f"{_RAW}xmp"
    most = 3 * most_bytes if raw else most_bytes  # two digits a byte, and ends of lines
    text = _unpacked(rest, most) if packed else rest
    if raw and text is not None:
        keyword, text = XMP_KEYWORD, _of_digits(text)
    return None if text is None or len(text) > most_bytes else (keyword, text)


def _unpacked(packed: bytes, most_bytes: int) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, most_bytes + 1)
    except zlib.error:
        return None
    return text if unpacker.eof and len(text) <= most_bytes else None


def _of_digits(text: bytes) -> bytes | None:
    """The bytes of a raw profile: behind its name and its length, each on a line, two digits a byte."""
    lines = text.split(b"\n", 3)
    try:
        return bytes.fromhex(lines[3].decode()) if len(lines) == 4 else None
    except ValueError:
        return None
