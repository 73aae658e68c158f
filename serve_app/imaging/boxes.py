"""Reads what AVIF and HEIC files say about their picture, from its boxes. It refuses to know pixels.

One file holds many items: the picture, its tiles, thumbnails, a plane of alpha. The primary item's properties
say what is seen. A decoder allocates what any `ispe` claims, so where another one is larger, as the tile of a
small picture is, its pixels are judged, too. Raises as `containers` does, and `NotRead` for what has no sRGB
look.

A plane of alpha lies as its picture does. But some writers state the crop and the turn of the picture alone,
and a decoder that goes item by item then leaves the alpha as it was. So where there is alpha, the decoder is
given the file without them (`without_turns`), and both are cropped and turned here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from serve_app.imaging.containers import Facts, NotRead
from serve_app.imaging.spaces import HIGH_RANGES, Space, of_codes

_MOST_BOXES = 4096  # a phone's picture of 48 tiles has about 150
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_TURNS = (b"clap", b"irot", b"imir")
# EXIF's number, by whether the stored rows are mirrored left to right, and then turned by quarters to the left.
_ORIENTATIONS = {
    (False, 0): 1,
    (True, 0): 2,
    (False, 2): 3,
    (True, 2): 4,
    (True, 1): 5,
    (False, 3): 6,
    (True, 3): 7,
    (False, 1): 8,
}

Box = tuple[bytes, int, int]
"""A box's type, and where its content begins and ends."""


def read_boxes(data: bytes) -> Facts:
    """Reads the primary item's size, bits and turn. Source: ISO/IEC 14496-12 and 23008-12."""
    within, known, associations = _parts(data)
    primary = _primary(data, _find(within, b"pitm"))
    own = [
        known[place - 1]
        for item, places in _associations(data, associations)
        for _, place in places
        if item == primary and place <= len(known)
    ]
    width, height = _size(data, _find(own, b"ispe"))
    claimed = max(_area(_size(data, box)) for box in known if box[0] == b"ispe")
    window, orientation = _turned(data, own, width, height)
    has_alpha = any(
        data[box[1] + 4 : box[2]].startswith(_ALPHA) for box in known if box[0] == b"auxC"
    )
    width, height = window[2:]
    here = has_alpha and any(box[0] in _TURNS for box in own)
    if not here and orientation >= 5:
        width, height = height, width
    return Facts(
        height,
        width,
        orientation if here else 1,
        has_alpha,
        _bits(data, own + known),  # a picture of tiles may leave it to them
        _weighed(data, within),
        _space(data, own),
        _gray(data, own),
        claimed,
        window if here else None,
    )


def without_turns(data: bytes) -> bytes:
    """A file of which no item states a crop or a turn any more, byte for byte as long as it was."""
    _, known, associations = _parts(data)
    plain = bytearray(data)
    for _, places in _associations(data, associations):
        for at, place in places:
            if place <= len(known) and known[place - 1][0] in _TURNS:
                width = 2 if data[associations[1] + 3] & 1 else 1
                plain[at : at + width] = bytes(width)  # the number of no property
    return bytes(plain)


def _parts(data: bytes) -> tuple[list[Box], list[Box], Box]:
    """What the box `meta` holds, all properties in their order, and the box that says whose they are."""
    meta = _find(_boxes(data, 0, len(data)), b"meta")
    within = list(_boxes(data, meta[1] + 4, meta[2]))
    properties = _find(within, b"iprp")
    parts = list(_boxes(data, properties[1], properties[2]))
    container = _find(parts, b"ipco")
    return within, list(_boxes(data, container[1], container[2])), _find(parts, b"ipma")


def _turned(
    data: bytes, own: list[Box], width: int, height: int
) -> tuple[tuple[int, int, int, int], int]:
    """What of the stored picture is seen, as left, top, width and height, and how it is turned, as in EXIF."""
    window, mirrored, quarters = (0, 0, width, height), False, 0
    for kind, at, _ in own:
        if kind == b"clap":
            window = _cropped(data, at, width, height)
        elif kind == b"irot":
            quarters += data[at] & 3
        elif (
            kind == b"imir"
        ):  # 1 swaps left and right; 0 top and bottom, which is that and half a turn
            mirrored, quarters = not mirrored, (0 if data[at] & 1 else 2) - quarters
    return window, _ORIENTATIONS[mirrored, quarters % 4]


def _gray(data: bytes, own: list[Box]) -> bool:
    for kind, at, _ in own:
        if kind == b"pixi":
            return data[at + 4] == 1
        if kind == b"av1C":
            return bool(data[at + 2] & 0x10)
    return False


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


def _cropped(data: bytes, at: int, width: int, height: int) -> tuple[int, int, int, int]:
    """What a clean aperture leaves; encoders pad a picture to whole blocks and say so by it."""
    across, over, down, under, *offsets = struct.unpack_from(">IIIIiIiI", data, at)
    if not over or not under or not offsets[1] or not offsets[3]:
        raise ValueError("its clean aperture is a fraction of nothing")
    seen_width, seen_height = min(width, across // over), min(height, down // under)
    left = (width - seen_width) / 2 + offsets[0] / offsets[1]
    top = (height - seen_height) / 2 + offsets[2] / offsets[3]
    return (
        min(max(int(left), 0), width - seen_width),
        min(max(int(top), 0), height - seen_height),
        seen_width,
        seen_height,
    )


def _associations(data: bytes, box: Box) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """For each item that has properties: where their numbers stand, and the numbers, from 1."""
    version, wide = data[box[1]], data[box[1] + 3] & 1
    size, mask = (2, 0x7FFF) if wide else (1, 0x7F)
    (entries,) = struct.unpack_from(">I", data, box[1] + 4)
    at = box[1] + 8
    for _ in range(min(entries, 65536)):
        (item,) = struct.unpack_from(">H" if version == 0 else ">I", data, at)
        at += 2 if version == 0 else 4
        ends = at + 1 + data[at] * size
        places = range(at + 1, ends, size)
        numbered = [(p, int.from_bytes(data[p : p + size]) & mask) for p in places]
        if ends > len(data):
            raise IndexError
        yield item, [(p, place) for p, place in numbered if place]
        at = ends


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
