"""A GIF's blocks: how many frames it has, and each frame as a file of its own.

libvips composes GIFs, but paints what a frame leaves bare in the file's background colour, and Pillow does too,
where every browser shows nothing. So frames are read alone and laid over each other by `shots`. No pixel is
decoded here.

Source: GIF89a, sections 17 to 26 and appendix B; the Netscape 2.0 extension for how often it plays.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from serve_app.imaging.shots import Disposal, Shot, bares

_EXTENSION, _PICTURE, _END, _PADDING = 0x21, 0x2C, 0x3B, 0x00
_CONTROL, _APPLICATION = 0xF9, 0xFF
_LOOPS = (b"\x0bNETSCAPE2.0\x03\x01", b"\x0bANIMEXTS1.0\x03\x01")
_DISPOSALS = {2: Disposal.CLEAR, 3: Disposal.PREVIOUS}
_DELAY_MS = 10
_MOST_FRAMES = 50_000  # more are not looked at
_MOST_BLOCKS = 1_000_000  # of at most 255 bytes each: 64 MiB of full ones are 260,000


@dataclass(slots=True)
class Blocks:
    """What a GIF's blocks say.

    Attributes:
        shots: Its frames.
        plays: How often they are shown; 0 is for ever.
        transparent: Whether a part of the canvas may be seen on which nothing is drawn.
        gray: Whether all its colours are.
        holed: The frames that declare a transparent colour; what was there before them shows through.
    """

    shots: list[Shot] = field(default_factory=list)
    plays: int = 1
    transparent: bool = False
    gray: bool = True
    holed: set[int] = field(default_factory=set)


def read_gif_blocks(data: bytes) -> Blocks:
    """Reads all blocks. The trailer may be missing, as many files' is.

    Raises:
        IndexError, struct.error: the file ends within a block.
        ValueError: there is a block of no known kind, or there are too many.
    """
    found, control = Blocks(), b"\4\0\0\0\0\0"
    shared = data[13 : 13 + _table_bytes(data[10])]
    at = 13 + len(shared)
    for _ in range(_MOST_BLOCKS):
        if at >= len(data) or data[at] == _END or len(found.shots) > _MOST_FRAMES:
            width, height = struct.unpack_from("<HH", data, 6)
            found.transparent = bares(found.shots, height, width, found.holed)
            return found
        kind, label = data[at], data[at + 1]
        if kind == _PADDING:
            at += 1
            continue
        if kind == _PICTURE:
            at = _read_picture(data, at, shared, control, found)
            control = b"\4\0\0\0\0\0"
            continue
        if kind != _EXTENSION:
            raise ValueError(f"a block of it is of the unknown kind {kind}")
        if label == _CONTROL:
            control = data[at + 2 : at + 8]
        elif label == _APPLICATION and data.startswith(_LOOPS, at + 2):
            (again,) = struct.unpack_from("<H", data, at + 16)
            found.plays = again + 1 if again else 0
        at = _behind(data, at + 2)
    raise ValueError(f"it is in more than {_MOST_BLOCKS} blocks")


def _read_picture(data: bytes, at: int, shared: bytes, control: bytes, found: Blocks) -> int:
    left, top, width, height, flags = struct.unpack_from("<HHHHB", data, at + 1)
    if not width or not height:
        raise ValueError("a frame is empty")
    own = data[at + 10 : at + 10 + _table_bytes(flags)]
    pixels = at + 10 + len(own)
    end = _behind(data, pixels + 1)
    flagged, delay = struct.unpack_from("<BH", control, 1)
    disposal = _DISPOSALS.get(flagged >> 2 & 7, Disposal.KEEP)
    table = own or shared
    size = (len(table) // 3).bit_length() - 2 if table else 0
    head = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x80 * bool(table) | size, 0, 0)
    place = struct.pack("<BHHHHB", _PICTURE, 0, 0, width, height, flags & 0x40)

    def alone() -> bytes:
        extension = bytes([_EXTENSION, _CONTROL]) + control
        return head + table + extension + place + data[pixels:end] + bytes([_END])

    if flagged & 1:
        found.holed.add(len(found.shots))
    found.gray &= table[0::3] == table[1::3] == table[2::3]
    found.shots.append(
        Shot(height, width, top, left, delay * _DELAY_MS, disposal, over=True, alone=alone)
    )
    return end


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind(data: bytes, at: int) -> int:
    for _ in range(_MOST_BLOCKS):
        size = data[at]
        at += 1 + size
        if not size:
            return at
    raise ValueError("a block of it is too long")
