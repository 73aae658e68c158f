"""Directories of tagged values: what EXIF blocks and TIFF files are made of.

Values travel as they are stored, so that nothing is guessed about what a camera wrote. A directory that makes
no sense raises `ValueError`. This module refuses to know what tags mean, but for the two that point to
further directories.

Source: Adobe, TIFF revision 6.0, section 2; CIPA DC-008 (EXIF) 3.0, section 4.6; the BigTIFF design of
libtiff.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias, Union

ORIENTATION_TAG, EXIF_TAG, GPS_TAG = 0x0112, 0x8769, 0x8825
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
_IFD = 13

_BYTES_OF_KIND = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    _IFD: 4,
    16: 8,
    129: 1,  # a text in UTF-8, of EXIF 3.0
}
_CODES = {SHORT: "H", LONG: "L", LONG8: "Q"}
_MOST_ENTRIES = 1000


class Value(NamedTuple):
    """One tag's value: its TIFF type, how many of it, and their bytes in the file's byte order."""

    kind: int
    length: int
    raw: bytes


Directory: TypeAlias = Mapping[int, Union[Value, "Directory"]]


def numbers(order: str, kind: int, *values: int) -> Value:
    """Packs whole numbers as SHORT, LONG or LONG8."""
    return Value(kind, len(values), struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values))


def text(value: str) -> Value:
    """Packs a text; what is not ASCII becomes a question mark, as the type demands."""
    raw = value.encode("ascii", "replace") + b"\0"
    return Value(ASCII, len(raw), raw)


def read_block(block: bytes) -> tuple[str, dict[int, Value | Directory]]:
    """Reads an EXIF block: its first directory, with the EXIF and GPS directories inside it.

    Args:
        block: From the byte order mark on.

    Returns:
        The byte order, `<` or `>`, and the directory. Entries whose data lie outside of the block are left out.

    Raises:
        ValueError: it is no such block, or its entries state more data than it has.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        raise ValueError("no TIFF header")
    try:
        (at,) = struct.unpack_from(order + "L", block, 4)
        first: dict[int, Value | Directory] = dict(_read(block, at, order))
        for tag in (EXIF_TAG, GPS_TAG):
            pointer = first.pop(tag, None)
            if isinstance(pointer, Value) and pointer.kind in (LONG, _IFD) and pointer.length == 1:
                first[tag] = _read(block, struct.unpack(order + "L", pointer.raw)[0], order)
    except struct.error as error:
        raise ValueError(str(error)) from None
    return order, first


def _read(block: bytes, at: int, order: str) -> dict[int, Value]:
    (count,) = struct.unpack_from(order + "H", block, at)
    if count > _MOST_ENTRIES:
        raise ValueError(f"{count} entries in one directory")
    found: dict[int, Value] = {}
    total = 0
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, many = struct.unpack_from(order + "HHL", block, place)
        size = _BYTES_OF_KIND.get(kind, 0) * many
        start = place + 8 if size <= 4 else struct.unpack_from(order + "L", block, place + 8)[0]
        if size == 0 or start + size > len(block):
            continue
        total += size
        if total > len(block):
            raise ValueError("entries share their data")
        found[tag] = Value(kind, many, bytes(block[start : start + size]))
    return found


def write_block(directory: Directory, order: str) -> bytes:
    """Writes an EXIF block."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "L", 8) + write(directory, order, 8)


def write(directory: Directory, order: str, at: int, *, big: bool = False) -> bytes:
    """Writes a directory and those inside it, each directly behind its own table.

    Args:
        directory: Values and directories by tag; packed in `order`.
        order: `<` or `>`.
        at: Where in the file it will stand; even.
        big: As BigTIFF: 64-bit counts and offsets.
    """
    word, pointer, kind_of_pointer = ("Q", 8, LONG8) if big else ("L", 4, LONG)
    table = struct.pack(order + ("Q" if big else "H"), len(directory))
    behind = at + len(table) + len(directory) * (4 + 2 * pointer) + pointer
    data = b""
    for tag, value in sorted(directory.items()):
        if isinstance(value, Value):
            kind, count, raw = value
        else:
            kind, count = kind_of_pointer, 1
            raw = struct.pack(order + word, behind + len(data))
            data += write(value, order, behind + len(data), big=big)
        if len(raw) > pointer:
            raw, data = struct.pack(order + word, behind + len(data)), data + raw
        data += b"\0" * (len(data) % 2)
        table += struct.pack(order + "HH" + word, tag, kind, count) + raw.ljust(pointer, b"\0")
    return table + b"\0" * pointer + data
