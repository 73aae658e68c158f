"""Reads what a TIFF file says about its first picture, from its first directory. It refuses to know pixels.

What no decoder here turns into colour exactly is refused by name: floats, more than 16 bits, Lab and raw
sensors; and what libvips hands over as if it were plain colour: luma and chroma outside JPEG, inks that are
not the usual four, gray with several more samples. Raises as `containers` does, and `NotRead` for a kind of
TIFF that is not read.
"""

from __future__ import annotations

import struct

from serve_app.imaging.containers import Facts, NotRead

_MOST_ENTRIES = 4096  # a photograph's directory has about 30
_WIDTH, _HEIGHT, _BITS, _COLOUR, _ORIENTATION = 0x100, 0x101, 0x102, 0x106, 0x112
_SAMPLES, _EXTRA, _SAMPLE_FORMAT = 0x115, 0x152, 0x153
_COMPRESSION, _PLANES, _TILE_WIDTH, _INKS = 0x103, 0x11C, 0x142, 0x14C
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # by photometric interpretation: channels of colour
_SEPARATED, _LUMA_AND_CHROMA = 5, 6
_ASSOCIATED, _STRAIGHT = 1, 2
_JPEG = 7
# Plain, fax (four kinds), LZW, JPEG, deflate (by two numbers), run lengths, WebP: what this libtiff can do.
_COMPRESSIONS = (1, 2, 3, 4, 32771, 5, _JPEG, 8, 32946, 32773, 50001)


def read_tiff(data: bytes) -> Facts:
    """Reads the first directory. Source: TIFF 6.0, sections 2, 8 and 18; BigTIFF by its layout."""
    tags = _first_directory(data)
    height, width = _one(tags, _HEIGHT), _one(tags, _WIDTH)
    bits, samples = tags.get(_BITS, (1,)), _one(tags, _SAMPLES, 1)
    if max(tags.get(_SAMPLE_FORMAT, (1,))) != 1:
        raise NotRead("a TIFF of floating-point or signed samples")
    if len(set(bits)) != 1 or bits[0] not in (1, 2, 4, 8, 16):
        raise NotRead(f"a TIFF of {'/'.join(map(str, bits[:4]))} bits a sample")
    meaning = _one(tags, _COLOUR, 1)
    colours = _COLOURS.get(meaning)
    if colours is None:
        raise NotRead(f"a TIFF of photometric interpretation {meaning}")
    if samples < colours:
        raise ValueError(f"it has {samples} samples for {colours} colours")
    _refuse_kinds(tags, meaning, colours, samples, bits[0])
    extra = tags.get(_EXTRA, ())
    kind = extra[0] if extra and samples > colours else 0  # libvips frees colour of alpha itself
    turn = _one(tags, _ORIENTATION, 1)
    return Facts(
        height,
        width,
        turn if 1 <= turn <= 8 else 1,
        kind in (_ASSOCIATED, _STRAIGHT),
        bits[0],
    )


def _refuse_kinds(
    tags: dict[int, tuple[int, ...]], meaning: int, colours: int, samples: int, bits: int
) -> None:
    compression, separate = _one(tags, _COMPRESSION, 1), _one(tags, _PLANES, 1) != 1
    if compression not in _COMPRESSIONS:
        raise NotRead(f"a TIFF of compression {compression}")
    if meaning == _LUMA_AND_CHROMA and (compression != _JPEG or separate):
        raise NotRead("a TIFF of luma and chroma outside JPEG")
    if meaning == _SEPARATED and _one(tags, _INKS, 1) != 1:
        raise NotRead("a TIFF of other inks than the usual four")
    if colours == 1 and samples > 2:
        raise NotRead(f"a TIFF of one colour and {samples - 1} more samples")
    if bits < 8 and samples > 1:
        raise NotRead(f"a TIFF of {samples} samples of {bits} bits")
    if separate and samples > 1 and _TILE_WIDTH in tags:
        raise NotRead("a TIFF of planes in tiles")


def _first_directory(data: bytes) -> dict[int, tuple[int, ...]]:
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in (data[2], data[3])
    count_type, size_type, width = ("Q", "Q", 20) if big else ("H", "I", 12)
    (at,) = struct.unpack_from(order + size_type, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count_type, data, at)
    if entries > _MOST_ENTRIES:
        raise ValueError(f"its directory claims {entries} entries")
    at += struct.calcsize(order + count_type)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(at, at + entries * width, width):
        tag, kind, count = struct.unpack_from(order + "HH" + size_type, data, entry)
        sample = _TYPES.get(kind)
        if sample is None or not 0 < count <= 16:  # what is asked for here is short
            continue
        layout = f"{order}{count}{sample}"
        value = entry + width - struct.calcsize(size_type if big else "I")
        if struct.calcsize(layout) > struct.calcsize(order + size_type):
            (value,) = struct.unpack_from(order + size_type, data, value)
        tags[tag] = struct.unpack_from(layout, data, value)
    return tags


def _one(tags: dict[int, tuple[int, ...]], tag: int, default: int | None = None) -> int:
    if tag in tags:
        return tags[tag][0]
    if default is None:
        raise ValueError(f"its directory lacks tag {tag:#x}")
    return default
