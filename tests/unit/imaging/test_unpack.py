from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from serve_app.imaging.codec import decode
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import chunk, exif, levels, png, saved

LIMITS = ImageLimits()


# F seen upright, in gray levels of 9; rows are asymmetric both ways.
F = np.array([[200, 200, 200], [200, 0, 0], [200, 200, 0], [200, 0, 0]], np.uint8)
# How each orientation stores F: what must be undone.
STORED = {
    1: F,
    2: F[:, ::-1],
    3: F[::-1, ::-1],
    4: F[::-1],
    5: F.T,
    6: np.array([[200, 0, 0, 0], [200, 0, 200, 0], [200, 200, 200, 200]], np.uint8),
    7: np.array([[0, 0, 0, 200], [0, 200, 0, 200], [200, 200, 200, 200]], np.uint8),
    8: np.array([[200, 200, 200, 200], [0, 200, 0, 200], [0, 0, 0, 200]], np.uint8),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_every_orientation_comes_upright(kind, orientation):
    big = np.kron(STORED[orientation], np.ones((16, 16), np.uint8))
    options = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95}}[kind]
    prefix = b"Exif\0\0" if kind == "JPEG" else b""
    image = Image.fromarray(big).convert("RGB")
    data = saved(image, kind, exif=prefix + exif(orientation), **options)
    picture = decode(data, LIMITS)
    assert picture.colour.shape == (64, 48, 3)
    assert picture.colour.flags.c_contiguous
    seen = levels(picture.colour)[8::16, 8::16, 1]
    assert np.abs(seen - F.astype(int)).max() <= 3


def test_orientation_turns_alpha_too():
    image = Image.fromarray(np.array([[[9, 9, 9, 255], [9, 9, 9, 51]]], np.uint8))
    picture = decode(saved(image, "PNG", exif=exif(6)), LIMITS)
    np.testing.assert_array_equal(levels(picture.alpha), [[255], [51]])


@pytest.mark.parametrize(
    ("data", "colour", "alpha"),
    [
        (saved(Image.new("1", (1, 1), 1), "PNG"), (255, 255, 255), None),
        (saved(Image.new("L", (1, 1), 77), "PNG"), (77, 77, 77), None),
        (saved(Image.new("LA", (1, 1), (77, 51)), "PNG"), (77, 77, 77), 51),
        (saved(Image.new("RGBA", (1, 1), (1, 2, 3, 4)), "PNG"), (1, 2, 3), 4),
        (png(1, 16, 0, [b"\x80\x80"]), (128, 128, 128), None),
        (png(1, 16, 2, [b"\x10\0\x20\0\x30\0"]), (16, 32, 48), None),
        (png(1, 16, 4, [b"\x10\0\x80\0"]), (16, 16, 16), 128),
        (png(1, 16, 6, [b"\x10\0\x20\0\x30\0\x40\0"]), (16, 32, 48), 64),
        (png(1, 2, 0, [b"\x40"]), (85, 85, 85), None),
        (png(1, 4, 0, [b"\x30"]), (51, 51, 51), None),
        (png(1, 8, 3, [b"\1"], chunk(b"PLTE", b"\1\2\3\4\5\6")), (4, 5, 6), None),
    ],
)
def test_every_way_of_keeping_a_pixel(data, colour, alpha):
    picture = decode(data, LIMITS)
    assert tuple(levels(picture.colour)[0, 0]) == colour
    assert (picture.alpha is None) == (alpha is None)
    if picture.alpha is not None:
        assert levels(picture.alpha)[0, 0] == alpha


def test_sixteen_bit_gray_keeps_sixteen_bits():
    picture = decode(png(2, 16, 0, [b"\x12\x34\x12\x35"]), LIMITS)
    np.testing.assert_array_equal(picture.colour[0, :, 0], [0x1234, 0x1235])


@pytest.mark.parametrize(
    "data",
    [
        png(2, 8, 0, [b"\x05\x99"], chunk(b"tRNS", b"\0\x05")),
        png(2, 2, 0, [b"\x60"], chunk(b"tRNS", b"\0\1")),
        png(2, 4, 0, [b"\x59"], chunk(b"tRNS", b"\0\5")),
        png(2, 1, 0, [b"\x40"], chunk(b"tRNS", b"\0\0")),
        png(2, 16, 0, [b"\x12\x34\x12\x35"], chunk(b"tRNS", b"\x12\x34")),
        png(2, 8, 2, [b"\1\2\3\1\2\4"], chunk(b"tRNS", b"\0\1\0\2\0\3")),
        png(
            2,
            16,
            2,
            [b"\1\0\2\0\3\0\1\0\2\0\4\0"],
            chunk(b"tRNS", b"\1\0\2\0\3\0"),
        ),
        png(2, 8, 3, [b"\0\1"], chunk(b"PLTE", b"\1\2\3\4\5\6") + chunk(b"tRNS", b"\0")),
    ],
    ids=["gray8", "gray2", "gray4", "gray1", "gray16", "rgb8", "rgb16", "palette"],
)
def test_one_colour_declared_transparent(data):
    picture = decode(data, LIMITS)
    np.testing.assert_array_equal(picture.alpha, [[0, 65535]])
    # what is hidden has taken on its visible neighbour's colour
    np.testing.assert_array_equal(picture.colour[0, 0], picture.colour[0, 1])


def test_a_palette_with_shades_of_transparency():
    before = chunk(b"PLTE", b"\1\2\3\4\5\6") + chunk(b"tRNS", b"\x10\x80")
    picture = decode(png(2, 8, 3, [b"\0\1"], before), LIMITS)
    np.testing.assert_array_equal(levels(picture.alpha), [[16, 128]])
    np.testing.assert_array_equal(levels(picture.colour), [[[1, 2, 3], [4, 5, 6]]])


def test_ink_colours():
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    red, green, blue = levels(decode(saved(inks, "JPEG", quality=95), LIMITS).colour)[8, 8]
    assert red <= 2
    assert green >= 253
    assert blue >= 253
