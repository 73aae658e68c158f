"""Every format and mode, against pixels that were laid down by another hand."""

from __future__ import annotations

import struct
from dataclasses import replace
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from serve_app.errors import BrokenImage, TooLarge, UnsupportedImage
from serve_app.imaging.codec import decode
from serve_app.imaging.inspect import inspect
from serve_app.imaging.opening import open_picture
from serve_app.imaging.spaces import of_codes, profile
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import exif, levels, noisy, saved, smooth
from tests.unit.imaging.tiled import box, heic_of_tiles

pillow_heif.register_heif_opener()
LIMITS = ImageLimits()
DEEP = np.random.default_rng(3).integers(0, 65536, (9, 14, 4)).astype(np.uint16)


def tiff(samples, **options):
    file = BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_lossless_modes_are_exact(kind, mode):
    image = noisy(20, 30).convert("RGBA")
    image.putalpha(Image.fromarray(np.arange(1, 601).reshape(20, 30).astype(np.uint8) | 1))
    image = image.convert(mode) if mode in ("RGBA", "LA") else noisy(20, 30).convert(mode)
    if kind == "BMP" and mode == "LA":
        with pytest.raises(OSError):
            saved(image, kind)
        return
    picture = decode(saved(image, kind), LIMITS)
    np.testing.assert_array_equal(picture.colour, np.asarray(image.convert("RGB"), np.uint16) * 257)
    # A BMP's fourth byte means nothing unless its header gives it a mask, and Pillow writes none.
    assert (picture.alpha is not None) == (mode in ("RGBA", "LA") and kind != "BMP")
    if picture.alpha is not None:
        np.testing.assert_array_equal(levels(picture.alpha), np.asarray(image.getchannel("A")))
    assert picture.traits.gray == ((mode in ("L", "LA", "1") and kind != "BMP") or mode == "L")
    assert picture.traits.bit_depth == 8


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}, {"planarconfig": "separate"}],
    ids=["plain", "tiles", "big-endian", "bigtiff", "planes"],
)
def test_sixteen_bit_tiff_is_exact(options):
    colour = DEEP[..., :3]
    if "planarconfig" in options:
        data = tiff(colour.transpose(2, 0, 1).copy(), photometric="rgb", **options)
    else:
        data = tiff(colour, photometric="rgb", **options)
    picture = decode(data, LIMITS)
    np.testing.assert_array_equal(picture.colour, colour)
    assert picture.traits.bit_depth == 16


def test_straight_alpha_of_a_tiff_is_exact():
    samples = DEEP | 1
    picture = decode(tiff(samples, photometric="rgb", extrasamples=["unassalpha"]), LIMITS)
    np.testing.assert_array_equal(picture.colour, samples[..., :3])
    np.testing.assert_array_equal(picture.alpha, samples[..., 3])


def test_colour_weighed_by_alpha_is_freed_of_it():
    straight, alpha = np.array([60000, 30000, 500]), 32768
    samples = np.empty((4, 4, 4), np.uint16)
    samples[..., :3], samples[..., 3] = np.rint(straight * alpha / 65535), alpha
    picture = decode(tiff(samples, photometric="rgb", extrasamples=["assocalpha"]), LIMITS)
    assert np.abs(picture.colour[2, 2].astype(int) - straight).max() <= 2
    assert (picture.alpha == alpha).all()


def test_sixteen_bit_gray_tiff_with_an_orientation():
    gray = DEEP[..., 0]
    data = tiff(gray, photometric="minisblack", extratags=[(274, "H", 1, 6, True)])
    picture = decode(data, LIMITS)
    np.testing.assert_array_equal(picture.colour[..., 1], np.rot90(gray, -1))
    assert picture.traits.gray


@pytest.mark.parametrize(
    "data",
    [
        tiff(DEEP[..., 0].astype(np.float32)),
        tiff(DEEP[..., 0].astype(np.int16)),
        tiff(DEEP[..., 0].astype(np.uint32)),
        tiff(DEEP[..., :3].astype(np.uint8), photometric="cielab"),
    ],
    ids=["float", "signed", "32 bits", "lab"],
)
def test_kinds_of_tiff_that_are_not_read_are_named(data):
    with pytest.raises(UnsupportedImage, match="TIFF"):
        decode(data, LIMITS)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_phone_pictures_come_upright_once(kind, orientation):
    """The writers turn the orientation into a box of the container, and leave EXIF as it was or at 1."""
    image = Image.new("RGB", (64, 32), (20, 20, 20))
    image.paste((230, 20, 20), (0, 0, 16, 16))
    picture = decode(saved(image, kind, exif=exif(orientation), quality=95), LIMITS)
    red = picture.colour[..., 0] > 30000
    corner = {
        1: (0, 0),
        2: (0, 1),
        3: (1, 1),
        4: (1, 0),
        5: (0, 0),
        6: (0, 1),
        7: (1, 1),
        8: (1, 0),
    }
    assert picture.colour.shape == ((32, 64, 3) if orientation < 5 else (64, 32, 3))
    down, right = corner[orientation]
    assert red[-4 if down else 4, -4 if right else 4]
    assert red.sum() == pytest.approx(256, abs=40)


TURNS = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


def turned_alone(data):
    """An AVIF whose turn its picture alone states, not its plane of alpha, as older writers have it."""
    at = data.index(b"ipma") + 12
    known, place, plain = [], data.index(b"ipco") + 4, bytearray(data)
    while place < at - 16:
        (size,) = struct.unpack_from(">I", data, place)
        known.append(data[place + 4 : place + 8])
        place += size
    at += 3 + data[at + 2]  # behind the picture's comes alpha's
    for mark in range(at + 3, at + 3 + data[at + 2]):
        if known[(data[mark] & 0x7F) - 1] in (b"irot", b"imir"):
            plain[mark] = 0
    assert bytes(plain) != data
    return bytes(plain)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "alone"])
def test_alpha_is_turned_with_its_picture(kind, orientation):
    image = smooth().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(120, 240, 2, np.uint8), (40, 1))))
    stored = np.asarray(image).astype(int)
    data = saved(image, kind.replace("alone", "AVIF"), exif=exif(orientation), quality=95)
    picture = decode(turned_alone(data) if kind == "alone" else data, LIMITS)
    seen = np.dstack([levels(picture.colour), levels(picture.alpha)])
    assert np.abs(seen - TURNS[orientation](stored)).max() <= 12
    assert np.abs(seen - TURNS[orientation](stored)).mean() <= 2


def test_alpha_is_cropped_with_its_picture():
    image = smooth().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(120, 240, 2, np.uint8), (40, 1))))
    data = saved(image, "AVIF", quality=95)
    header = inspect(data, LIMITS)
    cropped = open_picture(data, replace(header, height=9, width=20, window=(7, 5, 20, 9))).numpy()
    whole = open_picture(data, header).numpy()
    np.testing.assert_array_equal(cropped, whole[5:14, 7:27])


@pytest.mark.parametrize("tile_px", [64, 128, 256], ids=["six tiles", "two", "one, beyond it"])
@pytest.mark.parametrize(
    ("turns", "upright"),
    [
        (b"", lambda stored: stored),
        (box(b"irot", b"\3"), lambda stored: np.rot90(stored, -1)),
        (box(b"irot", b"\1") + box(b"imir", b"\1"), lambda stored: np.rot90(stored)[:, ::-1]),
    ],
    ids=["", "turned", "turned and mirrored"],
)
def test_a_heic_of_tiles_as_phones_write_it(tile_px, turns, upright):
    stored = np.asarray(noisy(100, 150))
    picture = decode(heic_of_tiles(stored, tile_px, turns, says_bits=not turns), LIMITS)
    np.testing.assert_array_equal(levels(picture.colour), upright(stored))


def test_a_heic_keeps_ten_bits():
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16)[None, :, None], (64, 1, 3)).copy()
    file = BytesIO()
    pillow_heif.from_bytes("RGB;16", (64, 64), ramp.tobytes()).save(
        file, quality=-1, chroma=444, matrix_coefficients=0
    )
    picture = decode(file.getvalue(), LIMITS)
    assert picture.traits.bit_depth == 16
    assert np.abs(picture.colour.astype(int) - ramp).max() <= 65535 / 1023
    assert picture.colour.max() == 65535


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "WEBP"])
def test_alpha_of_lossy_formats(kind):
    image = smooth().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 128))
    picture = decode(saved(image, kind, quality=95), LIMITS)
    assert np.abs(levels(picture.alpha) - 128).max() <= 3
    assert np.abs(levels(picture.colour) - np.asarray(smooth()).astype(int)).max() <= 10


def test_odd_sizes_of_a_heic():
    picture = decode(saved(smooth(39, 57), "HEIF", quality=95), LIMITS)
    assert picture.colour.shape == (39, 57, 3)


def test_a_gif_shows_its_first_frame():
    first, second = Image.new("RGB", (8, 6), (250, 0, 0)), Image.new("RGB", (8, 6), (0, 0, 250))
    picture = decode(saved(first, "GIF", save_all=True, append_images=[second] * 50), LIMITS)
    np.testing.assert_array_equal(levels(picture.colour)[3, 3], [250, 0, 0])
    assert picture.colour.shape == (6, 8, 3)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_gray_stays_gray(kind):
    gray = smooth().convert("L")
    picture = decode(saved(gray, kind, quality=95), LIMITS)
    assert picture.traits.gray
    assert np.abs(levels(picture.colour[..., 1]) - np.asarray(gray).astype(int)).max() <= 4


def test_three_equal_channels_stay_three_where_a_profile_speaks_of_three():
    icc = profile(of_codes(12, 13), gray=False)
    picture = decode(saved(smooth().convert("L"), "AVIF", icc_profile=icc), LIMITS)
    assert picture.traits.icc == icc


def gif(screen, frame, transparent=None):
    """A frame of colour 1, green, at (left, top, width, height) of a screen (width, height)."""
    left, top, width, height = frame
    codes = sum((4 | 1 << 3) << 6 * at for at in range(width * height)) | 5 << 6 * width * height
    data = codes.to_bytes((6 * width * height + 3 + 7) // 8, "little")
    control = b"" if transparent is None else bytes([0x21, 0xF9, 4, 1, 0, 0, transparent, 0])
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", *screen, 0x81, 0, 0)
        + bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
        + b"\x21\xfe\x03abc\0"
        + control
        + b","
        + struct.pack("<HHHHB", left, top, width, height, 0)
        + bytes([2, len(data)])
        + data
        + b"\0;"
    )


@pytest.mark.parametrize("transparent", [None, 2])
def test_what_a_gifs_first_frame_does_not_cover_is_transparent(transparent):
    picture = decode(gif((6, 5), (2, 1, 3, 2), transparent), LIMITS)
    covered = np.zeros((5, 6), bool)
    covered[1:3, 2:5] = True
    np.testing.assert_array_equal(picture.alpha, covered * 65535)
    assert (picture.colour[covered] == [0, 65535, 0]).all()


def test_a_gif_that_covers_all_has_no_transparency():
    assert decode(gif((3, 2), (0, 0, 3, 2)), LIMITS).alpha is None


@pytest.mark.parametrize("mode", ["RGBa", "RGBa;16"])
def test_colour_of_a_heic_is_freed_of_alpha_where_it_is_weighed_by_it(mode):
    top = 65535 if mode.endswith("16") else 255
    straight, alpha = np.array([0.9, 0.5, 0.1]) * top, round(top / 2)
    samples = np.empty((64, 64, 4), np.uint16 if top > 255 else np.uint8)
    samples[..., :3], samples[..., 3] = np.rint(straight * alpha / top), alpha
    file = BytesIO()
    pillow_heif.from_bytes(mode, (64, 64), samples.tobytes()).save(
        file, quality=-1, chroma=444, matrix_coefficients=0
    )
    picture = decode(file.getvalue(), LIMITS)
    assert np.abs(picture.colour[9, 9] / 65535 * top - straight).max() <= top / 150
    assert np.abs(picture.alpha / 65535 * top - alpha).max() <= top / 1000


def test_luma_and_chroma_of_a_tiff_are_not_taken_for_colour():
    with pytest.raises(UnsupportedImage, match="luma and chroma"):
        decode(saved(smooth().convert("YCbCr"), "TIFF"), LIMITS)
    data = saved(smooth(), "TIFF", compression="jpeg", quality=95)
    seen = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(levels(decode(data, LIMITS).colour) - seen).max() <= 3


def test_inks_without_a_profile_are_paper_times_light():
    inks = np.random.default_rng(1).integers(0, 256, (9, 14, 4)).astype(np.uint8)
    picture = decode(tiff(inks, photometric="separated"), LIMITS)
    light = 255.0 - inks
    np.testing.assert_allclose(
        picture.colour, light[..., :3] * light[..., 3:] / 255 * 257, atol=0.51
    )
    assert picture.traits.icc is None


@pytest.mark.parametrize("progressive", [False, True])
def test_inks_of_a_jpeg_are_not_inverted_twice(progressive):
    image = Image.new("CMYK", (32, 32), (200, 30, 60, 20))
    data = saved(image, "JPEG", quality=95, progressive=progressive)
    wanted = (255 - np.array([200, 30, 60])) * (255 - 20) / 255
    assert np.abs(levels(decode(data, LIMITS).colour)[9, 9] - wanted).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "HEIF"])
def test_metadata_is_handed_on_as_found(kind):
    block, packet = exif(1), b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    prefix = b"Exif\0\0" if kind == "JPEG" else b""
    traits = decode(saved(smooth(), kind, exif=prefix + block, xmp=packet), LIMITS).traits
    assert traits.exif is not None
    assert traits.exif[:4] in (b"II*\0", b"MM\0*")
    if kind != "PNG":
        assert traits.xmp is not None
        assert packet in traits.xmp


def test_a_block_over_the_limit_is_too_large():
    with pytest.raises(TooLarge, match="xmp") as caught:
        decode(saved(smooth(), "WEBP", xmp=b"x" * 5000), ImageLimits(metadata_bytes=4999))
    assert caught.value.allowed == "at most 4999 bytes of xmp"


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "AVIF", "HEIF"])
def test_half_a_file_is_broken(kind):
    data = saved(noisy(64, 64), kind)
    with pytest.raises(BrokenImage):
        decode(data[: len(data) // 2], LIMITS)
