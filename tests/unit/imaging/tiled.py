"""A HEIC of tiles, laid out as phones do: the picture is a grid, and its coded parts are items of their own."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

GRID, FIRST_TILE = 1, 2


def box(kind: bytes, content: bytes = b"", full: bytes = b"") -> bytes:
    """A box; `full` is the version and the flags of those that have them."""
    return struct.pack(">I4s", len(content) + len(full) + 8, kind) + full + content


def heic_of_tiles(
    picture: NDArray[np.uint8], tile_px: int, turns: bytes = b"", *, says_bits: bool = True
) -> bytes:
    """Codes a picture in tiles.

    Args:
        picture: (H, W, 3), sRGB. What the last tiles have beyond it is black.
        tile_px: The side of a tile.
        turns: Boxes that say how the picture is to be cropped and turned.
        says_bits: Whether the picture itself says how many bits it has, or leaves it to its tiles.
    """
    height, width = picture.shape[:2]
    rows, columns = -(-height // tile_px), -(-width // tile_px)
    padded = np.zeros((rows * tile_px, columns * tile_px, 3), np.uint8)
    padded[:height, :width] = picture
    tiles = [
        _coded(padded[top : top + tile_px, left : left + tile_px])
        for top in range(0, height, tile_px)
        for left in range(0, width, tile_px)
    ]
    numbers = range(FIRST_TILE, FIRST_TILE + len(tiles))
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    long = bytes(4)
    properties = [
        tiles[0][0],
        box(b"ispe", struct.pack(">II", tile_px, tile_px), long),
        box(b"ispe", struct.pack(">II", width, height), long),
        *([box(b"pixi", b"\3\x08\x08\x08", long)] if says_bits else []),
        *_split(turns),
    ]
    own = bytes(range(3, len(properties) + 1))
    links = struct.pack(">IHB", 1 + len(tiles), GRID, len(own)) + own
    links += b"".join(struct.pack(">HB", item, 2) + b"\x81\2" for item in numbers)
    infos = [_info(GRID, b"grid", 0)] + [_info(item, b"hvc1", 1) for item in numbers]

    def meta(data_at: int) -> bytes:
        places = struct.pack(">HHHHII", GRID, 1, 0, 1, 0, len(grid))
        for item, (_, coded) in zip(numbers, tiles, strict=True):
            places += struct.pack(">HHHHII", item, 0, 0, 1, data_at, len(coded))
            data_at += len(coded)
        refers = struct.pack(f">HH{len(tiles)}H", GRID, len(tiles), *numbers)
        return box(
            b"meta",
            box(b"hdlr", bytes(4) + b"pict" + bytes(13), long)
            + box(b"pitm", struct.pack(">H", GRID), long)
            + box(b"iinf", struct.pack(">H", len(infos)) + b"".join(infos), long)
            + box(b"iref", box(b"dimg", refers), long)
            + box(b"iprp", box(b"ipco", b"".join(properties)) + box(b"ipma", links, long))
            + box(b"idat", grid)
            + box(b"iloc", b"\x44\0" + struct.pack(">H", 1 + len(tiles)) + places, b"\1\0\0\0"),
            long,
        )

    start = box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    data_at = len(start) + len(meta(0)) + 8
    return start + meta(data_at) + box(b"mdat", b"".join(coded for _, coded in tiles))


def _info(item: int, kind: bytes, flags: int) -> bytes:
    return box(b"infe", struct.pack(">HH", item, 0) + kind + b"\0", b"\2\0\0" + bytes([flags]))


def _coded(tile: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """A tile's box of what its decoder must know, and its coded pixels, without loss."""
    file = BytesIO()
    heif = pillow_heif.from_pillow(Image.fromarray(tile))
    heif.save(file, quality=-1, chroma=444, matrix_coefficients=0)
    data = file.getvalue()
    at = data.index(b"hvcC") - 4
    (size,) = struct.unpack_from(">I", data, at)
    mdat = data.index(b"mdat") - 4
    (length,) = struct.unpack_from(">I", data, mdat)
    return data[at : at + size], data[mdat + 8 : mdat + length]


def _split(boxes: bytes) -> list[bytes]:
    found = []
    while boxes:
        (size,) = struct.unpack_from(">I", boxes)
        found.append(boxes[:size])
        boxes = boxes[size:]
    return found
