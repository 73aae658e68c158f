"""Colours by numbers: profiles against another lcms, and whole files against the formulas."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from serve_app.errors import UnsupportedImage
from serve_app.imaging.codec import decode
from serve_app.imaging.profiles import Conversion
from serve_app.imaging.spaces import SRGB, Space, of_codes, of_png, profile
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import chunk, ihdr, saved

pillow_heif.register_heif_opener()
LIMITS = ImageLimits()
MUTED = np.array([[[200, 120, 60], [90, 140, 110], [128, 128, 128], [90, 100, 160]]], np.uint8)
P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)
CHRM_P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
GAMMA = {45455: struct.pack(">I", 45455), 100000: struct.pack(">I", 100000)}


def png(*chunks, samples=MUTED, colour_type=2):
    height, width = samples.shape[:2]
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in samples))
    parts = (ihdr(width, height, 8, colour_type), *chunks, chunk(b"IDAT", rows), chunk(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def to_light(samples):
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def from_light(light):
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def to_xyz(chromaticities):
    colours = np.reshape(chromaticities, (4, 2))
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in colours]).T
    return xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])


def srgb_of(space, samples=MUTED):
    """By the formulas, in doubles; both whites are D65."""
    shown = samples / 255
    light = to_light(shown) if space.exponent is None else shown**space.exponent
    turn = np.linalg.inv(to_xyz(SRGB.chromaticities)) @ to_xyz(space.chromaticities)
    return from_light(light @ turn.T) * 65535


@pytest.mark.parametrize(
    ("chunks", "space"),
    [
        ({}, None),
        ({b"cICP": b"\x0c\x0d\0\1"}, Space(P3)),
        ({b"cICP": b"\x01\x0d\0\1", b"iCCP": b"x", b"cHRM": CHRM_P3}, SRGB),
        ({b"iCCP": b"x", b"sRGB": b"\0", b"cHRM": CHRM_P3}, None),
        ({b"sRGB": b"\0", b"cHRM": CHRM_P3, b"gAMA": GAMMA[100000]}, SRGB),
        ({b"gAMA": GAMMA[100000]}, Space(exponent=1)),
        ({b"gAMA": GAMMA[45455]}, SRGB),
        ({b"cHRM": CHRM_P3, b"gAMA": GAMMA[45455]}, Space(P3)),
        ({b"gAMA": bytes(4)}, SRGB),
        ({b"gAMA": b"\xff" * 4}, SRGB),
        ({b"gAMA": b"\1", b"cICP": b"\x09", b"cHRM": CHRM_P3 + b"x"}, None),
    ],
    ids=[
        *("nothing", "cICP", "cICP first", "then iCCP", "then sRGB", "gAMA", "gAMA of sRGB"),
        *("both", "gAMA of 0", "gAMA of much", "wrong lengths"),
    ],
)
def test_what_a_png_names_goes_by_precedence(chunks, space):
    assert of_png(chunks) == space


@pytest.mark.parametrize("transfer", [1, 2, 6, 13, 14, 15])
def test_curves_for_common_screens_count_as_srgbs(transfer):
    assert of_codes(1, transfer) == SRGB
    assert of_codes(2, transfer) == SRGB
    assert of_codes(9, transfer).exponent is None


@pytest.mark.parametrize(
    ("chunks", "space"),
    [
        ([chunk(b"cICP", b"\x0c\x0d\0\1")], of_codes(12, 13)),
        ([chunk(b"cICP", b"\x09\x0e\0\1")], of_codes(9, 14)),
        ([chunk(b"cHRM", CHRM_P3), chunk(b"gAMA", GAMMA[100000])], Space(P3, 1.0)),
        ([chunk(b"gAMA", struct.pack(">I", 55556))], Space(exponent=1.8)),
    ],
    ids=["P3", "BT.2020", "linear P3", "gamma 1.8"],
)
def test_a_png_comes_out_as_the_formulas_say(chunks, space):
    picture = decode(png(*chunks), LIMITS)
    assert np.abs(picture.colour - srgb_of(space)).max() <= 32  # of 65535
    back = Conversion(picture.traits.icc, gray=False, limits=LIMITS)(picture.colour)
    inside = srgb_of(space).min(axis=2) > 100  # nothing was clipped
    assert np.abs(back.astype(int) - MUTED.astype(int) * 257)[inside].max() <= 64


def test_a_gray_png_follows_its_curve():
    samples = np.array([[[30], [128], [255]]], np.uint8)
    data = png(chunk(b"gAMA", GAMMA[100000]), samples=samples, colour_type=0)
    picture = decode(data, LIMITS)
    wanted = from_light(samples / 255) * 65535
    assert np.abs(picture.colour - wanted).max() <= 64
    assert picture.traits.gray
    back = Conversion(picture.traits.icc, gray=True, limits=LIMITS)(picture.colour)
    assert np.abs(back.astype(int) - samples.astype(int) * 257).max() <= 64


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_an_avif_and_a_heic_follow_their_primaries(kind):
    flat = np.full((64, 64, 3), (200, 120, 60), np.uint8)
    data = bytearray(saved(Image.fromarray(flat), kind, quality=100))
    at = data.index(b"colrnclx") + 8
    plain = decode(bytes(data), LIMITS)
    assert plain.traits.icc is None
    data[at : at + 2] = struct.pack(">H", 12)
    picture = decode(bytes(data), LIMITS)
    seen = np.rint(plain.colour[32:33, 32:33] / 257)
    assert np.abs(picture.colour[32, 32] - srgb_of(of_codes(12, 13), seen)).max() <= 257
    assert picture.traits.icc == profile(of_codes(12, 13), gray=False)


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused_by_name(transfer):
    with pytest.raises(UnsupportedImage, match="high dynamic range"):
        decode(png(chunk(b"cICP", bytes([9, transfer, 0, 1]))), LIMITS)


def test_narrow_range_is_refused_by_name():
    with pytest.raises(UnsupportedImage, match="narrow range"):
        decode(png(chunk(b"cICP", bytes([9, 14, 0, 0]))), LIMITS)


@pytest.mark.parametrize("body", [bytes(32), b"\xff" * 32, CHRM_P3[:8] * 4])
def test_chromaticities_that_span_nothing_count_as_none(body):
    picture = decode(png(chunk(b"cHRM", body)), LIMITS)
    np.testing.assert_array_equal(picture.colour, MUTED.astype(int) * 257)
    assert picture.traits.icc is None


@pytest.mark.parametrize("codes", [(12, 13), (9, 14), (11, 17), (4, 4), (6, 6), (22, 8)])
def test_another_reader_reads_the_profile_alike(codes):
    icc = profile(of_codes(*codes), gray=False)
    theirs = ImageCms.ImageCmsProfile(BytesIO(icc))
    assert theirs.profile.xcolor_space == "RGB "
    assert theirs.profile.version == 4.3
    assert len(icc) == struct.unpack(">I", icc[:4])[0] < 1024
    white = np.sum([theirs.profile.red_colorant[0], theirs.profile.green_colorant[0]], axis=0)
    white = white + np.array(theirs.profile.blue_colorant[0])
    np.testing.assert_allclose(white, [0.9642, 1.0, 0.8249], atol=2e-4)


def test_another_reader_turns_colours_alike():
    icc = profile(of_codes(12, 13), gray=False)
    theirs = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(BytesIO(icc)), ImageCms.createProfile("sRGB"), "RGB", "RGB", 1
    )
    wanted = np.asarray(ImageCms.applyTransform(Image.fromarray(MUTED), theirs)).astype(int)
    picture = decode(png(chunk(b"cICP", b"\x0c\x0d\0\1")), LIMITS)
    assert np.abs(picture.colour / 257 - wanted).max() <= 1


@pytest.mark.parametrize("seed", range(40))
def test_no_numbers_break_it(seed):
    numbers = np.random.default_rng(seed)
    body = struct.pack(">8I", *(int(10 ** numbers.uniform(0, 9)) for _ in range(8)))
    space = of_png({b"cHRM": body, b"gAMA": struct.pack(">I", int(10 ** numbers.uniform(0, 9)))})
    found = profile(space, gray=bool(seed % 2))
    assert found is None or 300 < len(found) < 1024
