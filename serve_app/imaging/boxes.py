"""Reads what AVIF and HEIC files say about their picture, from its boxes. It refuses to know pixels.

One file holds many items: the picture, its tiles, thumbnails, a plane of alpha. The primary item's properties
say what is seen. A decoder allocates what any `ispe` claims, so where another one is larger, that is the size
to be judged. Raises as `containers` does, and `NotRead` for what has no sRGB look.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from serve_app.imaging.containers import Facts, NotRead
from serve_app.imaging.spaces import HIGH_RANGES, Space, of_codes

_MOST_BOXES = 4096  # a phone's picture of 48 tiles has about 150
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_QUARTER_TURNED = (1, 3)

Box = tuple[bytes, int, int]
"""A box's type, and where its content begins and ends."""


def read_boxes(data: bytes) -> Facts:
    """Reads the primary item's size, bits and turn. Source: ISO/IEC 14496-12 and 23008-12."""
    meta = _find(_boxes(data, 0, len(data)), b"meta")
    within = list(_boxes(data, meta[1] + 4, meta[2]))
    primary = _primary(data, _find(within, b"pitm"))
    properties = _find(within, b"iprp")
    parts = list(_boxes(data, properties[1], properties[2]))
    container = _find(parts, b"ipco")
    known = list(_boxes(data, container[1], container[2]))
    own = [known[i - 1] for i in _owned(data, _find(parts, b"ipma"), primary) if i <= len(known)]
    width, height = _size(data, _find(own, b"ispe"))
    largest = max((_size(data, box) for box in known if box[0] == b"ispe"), key=_area)
    if _area(largest) > width * height:
        width, height = largest
    else:
        for box in own:
            if box[0] == b"clap":
                width, height = _cropped(data, box, width, height)
    turns = sum(data[box[1]] & 3 in _QUARTER_TURNED for box in own if box[0] == b"irot")
    if turns % 2:
        height, width = width, height
    space = _space(data, own)
    has_alpha = any(
        data[box[1] + 4 : box[2]].startswith(_ALPHA) for box in known if box[0] == b"auxC"
    )
    return Facts(
        height,
        width,
        1,
        has_alpha,
        _bits(data, own),
        _weighed(data, within),
        space,
        _gray(data, own),
    )


def _gray(data: bytes, own: list[Box]) -> bool:
    return any(kind == b"pixi" and data[at + 4] == 1 for kind, at, _ in own)


def _weighed(data: bytes, within: list[Box]) -> bool:
    """Whether an item refers to its plane of alpha as one that it is premultiplied by."""
    for kind, at, stop in within:
        if kind == b"iref":
            return any(box[0] == b"prem" for box in _boxes(data, at + 4, stop))
    return False


def count_samples(data: bytes) -> int:
    """Frames of the longest track, 1 without any. Source: ISO/IEC 14496-12, 8.3.1 and 8.7.3 (stsz)."""
    longest = 1
    for _, at, end in _within(data, [(b"", 0, len(data))], b"moov"):
        tables = [(b"moov", at, end)]
        for kind in (b"trak", b"mdia", b"minf", b"stbl", b"stsz"):
            tables = _within(data, tables, kind)
        for _, table, _ in tables:
            longest = max(longest, struct.unpack_from(">I", data, table + 8)[0])
    return longest


def _within(data: bytes, outer: list[Box], kind: bytes) -> list[Box]:
    return [box for _, at, end in outer for box in _boxes(data, at, end) if box[0] == kind]


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        content = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if size == 0 else at + size
        if stop < content or stop > len(data) or stop > end:
            raise IndexError
        yield kind, content, stop
        at = stop
    raise ValueError(f"it is in more than {_MOST_BOXES} boxes")


def _find(boxes: Iterator[Box] | list[Box], kind: bytes) -> Box:
    for box in boxes:
        if box[0] == kind:
            return box
    raise ValueError(f"it has no box {kind.decode()}")


def _primary(data: bytes, box: Box) -> int:
    item: int = struct.unpack_from(">H" if data[box[1]] == 0 else ">I", data, box[1] + 4)[0]
    return item


def _size(data: bytes, box: Box) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, box[1] + 4)
    return width, height


def _cropped(data: bytes, box: Box, width: int, height: int) -> tuple[int, int]:
    """The size that a clean aperture leaves; encoders pad a picture to whole blocks and say so by it."""
    across, over, down, under = struct.unpack_from(">IIII", data, box[1])
    if not over or not under:
        raise ValueError("its clean aperture is a fraction of nothing")
    return min(width, across // over), min(height, down // under)


def _owned(data: bytes, box: Box, item: int) -> list[int]:
    """The places, from 1, of an item's properties."""
    version, wide = data[box[1]], data[box[1] + 3] & 1
    (entries,) = struct.unpack_from(">I", data, box[1] + 4)
    at = box[1] + 8
    for _ in range(min(entries, 65536)):
        (found,) = struct.unpack_from(">H" if version == 0 else ">I", data, at)
        at += 2 if version == 0 else 4
        count = data[at]
        places = struct.unpack_from(f">{count}{'H' if wide else 'B'}", data, at + 1)
        if found == item:
            return [place & (0x7FFF if wide else 0x7F) for place in places if place]
        at += 1 + count * (2 if wide else 1)
    raise ValueError("its picture has no properties")


def _bits(data: bytes, own: list[Box]) -> int:
    for kind, at, _ in own:
        if kind == b"pixi":
            return data[at + 5]
        if kind == b"av1C":
            high, twelve = data[at + 2] >> 6 & 1, data[at + 2] >> 5 & 1
            return 8 + 2 * high + 2 * (high and twelve)
        if kind == b"hvcC":
            return (data[at + 17] & 7) + 8
    return 8


def _space(data: bytes, own: list[Box]) -> Space | None:
    """What `nclx` names, unless there is a profile besides. Source: ISO/IEC 14496-12, 12.1.5."""
    found = None
    said = {data[at : at + 4]: at for kind, at, _ in own if kind == b"colr"}
    if b"nclx" in said:
        primaries, transfer = struct.unpack_from(">HH", data, said[b"nclx"] + 4)
        if transfer in HIGH_RANGES:
            raise NotRead(f"a picture of high dynamic range ({HIGH_RANGES[transfer]})")
        found = of_codes(primaries, transfer)
    return None if b"prof" in said or b"rICC" in said else found
