"""Pixels of rare layouts and corner sizes, laid down by hand or by another writer, against what they say."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from serve_app.imaging.codec import decode
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import chunk

LIMITS = ImageLimits()
SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (5, 3), (17, 19)]
ADAM7 = [
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
]
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
NUMBERS = np.random.default_rng(11)


def same(picture, colour, alpha=None, most=0):
    """Colour counts where something is visible."""
    colour = np.asarray(colour, int)
    wanted = np.repeat(colour[:, :, None], 3, axis=2) if colour.ndim == 2 else colour
    visible = np.ones(wanted.shape[:2], bool) if alpha is None else np.asarray(alpha) > 0
    assert picture.colour.shape == wanted.shape
    assert np.abs(picture.colour.astype(int) - wanted)[visible].max(initial=0) <= most
    if alpha is None:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(picture.alpha, alpha)


def packed(samples, depth):
    """Rows of samples, as PNG and BMP pack them."""
    rows = samples.reshape(len(samples), -1)
    if depth == 16:
        return rows.astype(">u2").view(np.uint8)
    bits = rows[:, :, None] >> np.arange(depth - 1, -1, -1) & 1
    return np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1)


def png(samples, colour_type, depth, interlaced, *chunks):
    height, width = samples.shape[:2]
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    parts = [np.ascontiguousarray(samples[y::down, x::across]) for y, x, down, across in passes]
    rows = [b"\0" + row.tobytes() for part in parts if part.size for row in packed(part, depth)]
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join((chunk(b"IHDR", head), *chunks, pixels, chunk(b"IEND")))


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(
    ("colour_type", "depth"),
    [(0, d) for d in (1, 2, 4, 8, 16)]
    + [(3, d) for d in (1, 2, 4, 8)]
    + [(c, d) for c in (2, 4, 6) for d in (8, 16)],
)
def test_every_kind_of_png_in_corner_sizes(colour_type, depth, interlaced):
    top = 2**depth - 1
    for height, width in SIZES:
        samples = NUMBERS.integers(0, top + 1, (height, width, SAMPLES[colour_type]))
        if colour_type == 3:
            palette = NUMBERS.integers(0, 256, (top + 1, 3)).astype(np.uint8)
            told = chunk(b"PLTE", palette.tobytes())
            data = png(samples, 3, depth, interlaced, told)
            same(decode(data, LIMITS), palette[samples[..., 0]].astype(int) * 257)
            continue
        alpha = samples[..., -1] * 65535 // top if colour_type in (4, 6) else None
        colour = samples[..., : 1 if colour_type in (0, 4) else 3] * 65535 // top
        colour = colour[..., 0] if colour.shape[2] == 1 else colour
        same(decode(png(samples, colour_type, depth, interlaced), LIMITS), colour, alpha)
        if alpha is None:
            key = samples[0, 0]
            told = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
            hidden = (samples == key).all(axis=2)
            picture = decode(png(samples, colour_type, depth, interlaced, told), LIMITS)
            same(picture, colour, np.where(hidden, 0, 65535))


def test_a_palette_of_one_colour():
    for depth in (1, 2, 4, 8):
        data = png(np.zeros((2, 3, 1), int), 3, depth, 0, chunk(b"PLTE", bytes([9, 200, 77])))
        same(decode(data, LIMITS), np.full((2, 3, 3), (9, 200, 77)) * 257)


def bmp(rows, bits, size, header=40, compression=0, masks=b"", palette=b""):
    """A BMP of `rows`, from the lowest; `size` is (width, height), a negative height is top-down."""
    body = b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in rows)
    if header == 12:
        dib = struct.pack("<IHHHH", 12, *size, 1, bits)
    else:
        colours = len(palette) // 4
        dib = struct.pack(
            "<IiiHHIIiiII", header, *size, 1, bits, compression, len(body), 0, 0, colours, 0
        )
        dib = (dib + masks).ljust(header, b"\0") if header > 40 else dib + masks
    start = 14 + len(dib) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + dib + palette + body


PIXELS = NUMBERS.integers(1, 256, (5, 7, 4)).astype(np.uint8)
MASKS = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)


@pytest.mark.parametrize("header", [12, 40, 64, 108, 124])
def test_bmp_of_24_bits(header):
    rows = PIXELS[::-1, :, 2::-1].reshape(5, -1)
    same(decode(bmp(rows, 24, (7, 5), header), LIMITS), PIXELS[..., :3].astype(int) * 257)


def test_bmp_from_the_top():
    rows = PIXELS[:, :, 2::-1].reshape(5, -1)
    same(decode(bmp(rows, 24, (7, -5)), LIMITS), PIXELS[..., :3].astype(int) * 257)


@pytest.mark.parametrize(("header", "masks"), [(56, MASKS), (108, MASKS), (124, MASKS), (40, b"")])
def test_a_bmps_fourth_byte_is_alpha_where_a_mask_says_so(header, masks):
    rows = PIXELS[::-1][..., [2, 1, 0, 3]].reshape(5, -1)
    picture = decode(bmp(rows, 32, (7, 5), header, 3 if masks else 0, masks), LIMITS)
    alpha = PIXELS[..., 3].astype(int) * 257 if masks else None
    same(picture, PIXELS[..., :3].astype(int) * 257, alpha)


@pytest.mark.parametrize("greens", [5, 6])
def test_bmp_of_16_bits(greens):
    samples = NUMBERS.integers(0, 32, (5, 7, 3))
    places, masks = (10, 5), b""
    if greens == 6:
        places, masks = (11, 5), struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    green = samples[..., 1] * (greens - 4)
    rows = (samples[..., 0] << places[0] | green << places[1] | samples[..., 2]).astype("<u2")
    tops = (31, 2**greens - 1, 31)
    wanted = np.dstack([samples[..., 0], green, samples[..., 2]]) * 65535 / tops
    picture = decode(
        bmp(rows[::-1], 16, (7, 5), compression=3 if masks else 0, masks=masks), LIMITS
    )
    same(picture, np.rint(wanted), most=257)


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_bmp_with_a_palette(depth):
    palette = NUMBERS.integers(0, 256, (2**depth, 4)).astype(np.uint8)
    places = NUMBERS.integers(0, 2**depth, (5, 7))
    data = bmp(packed(places, depth)[::-1], depth, (7, 5), palette=palette.tobytes())
    same(decode(data, LIMITS), palette[places][..., 2::-1].astype(int) * 257)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"bigtiff": True},
        {"tile": (16, 16)},
        {"compression": "zlib", "predictor": True},
        {"rowsperstrip": 3},
    ],
    ids=["plain", "big", "tiles", "predicted", "strips"],
)
@pytest.mark.parametrize("deep", [False, True])
def test_kinds_of_tiff_in_corner_sizes(byteorder, layout, deep):
    top, kind = (65535, np.uint16) if deep else (255, np.uint8)
    for height, width in SIZES:
        samples = NUMBERS.integers(1, top + 1, (height, width, 4)).astype(kind)
        wide = samples.astype(int) * (65535 // top)

        def read(stored, **told):
            file = BytesIO()
            tifffile.imwrite(file, stored, byteorder=byteorder, **layout, **told)
            return decode(file.getvalue(), LIMITS)

        straight = {"extrasamples": ["unassalpha"], "planarconfig": "contig"}
        same(read(samples[..., :3].copy(), photometric="rgb"), wide[..., :3])
        same(read(samples, photometric="rgb", **straight), wide[..., :3], wide[..., 3])
        gray = samples[..., 0].copy()
        same(read(gray, photometric="minisblack"), wide[..., 0])
        same(read(gray, photometric="miniswhite"), 65535 - wide[..., 0])
        two = samples[..., ::3].copy()
        same(read(two, photometric="minisblack", **straight), wide[..., 0], wide[..., 3])
        paper = (65535 - wide[..., :3]) * (65535 - wide[..., 3:]) / 65535
        same(read(samples, photometric="separated"), np.rint(paper), most=1)


@pytest.mark.parametrize("fax", ["group3", "group4", "tiff_ccitt"])
def test_fax(fax):
    for height, width in SIZES:
        bits = NUMBERS.integers(0, 2, (height, width)).astype(bool)
        file = BytesIO()
        Image.fromarray(bits).save(file, "TIFF", compression=fax)
        same(decode(file.getvalue(), LIMITS), bits * 65535)
