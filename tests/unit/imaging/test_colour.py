from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from serve_app.imaging.codec import decode
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import noisy, saved

LIMITS = ImageLimits()
P3 = bytes(pyvips.Operation.call("profile_load", "p3"))
SRGB_BY_LCMS = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Linear Display P3 to linear sRGB, from the chromaticities of both (D65).
MATRIX = np.array(
    [[1.22494, -0.22494, 0.0], [-0.04206, 1.04206, 0.0], [-0.01964, -0.07864, 1.09827]]
)


def linear(v):
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def curved(v):
    return np.where(v <= 0.0031308, 12.92 * v, 1.055 * np.maximum(v, 0) ** (1 / 2.4) - 0.055)


def p3_tiff(samples, **options):
    file = BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb", iccprofile=P3, **options)
    return file.getvalue()


def test_a_deep_p3_tiff_with_alpha_becomes_srgb_without_loss_of_precision():
    samples = np.random.default_rng(2).integers(20000, 40000, (30, 40, 4)).astype(np.uint16)
    picture = decode(p3_tiff(samples, extrasamples=["unassalpha"]), LIMITS)
    wanted = curved(linear(samples[..., :3] / 65535) @ MATRIX.T)
    error = np.abs(picture.colour / 65535 - wanted)
    assert error.mean() < 0.0003
    assert error.max() < 0.003  # a profile states its numbers to 16 bits
    np.testing.assert_array_equal(picture.alpha, samples[..., 3])
    assert picture.traits.icc == P3
    assert picture.traits.bit_depth == 16


def test_neighbouring_deep_levels_stay_apart():
    ramp = np.repeat(np.arange(30000, 30400, dtype=np.uint16)[None, :, None], 3, axis=2)
    seen = decode(p3_tiff(ramp), LIMITS).colour[0, :, 1]
    assert len(np.unique(seen)) > 300


def test_a_profile_that_is_srgb_changes_no_bit():
    picture = decode(saved(noisy(), "PNG", icc_profile=SRGB_BY_LCMS), LIMITS)
    np.testing.assert_array_equal(picture.colour, np.asarray(noisy(), np.uint16) * 257)
    assert picture.traits.icc is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_every_container_hands_its_profile_over(kind):
    image = Image.new("RGB", (16, 16), (60, 200, 90))
    picture = decode(saved(image, kind, icc_profile=P3, quality=95), LIMITS)
    wanted = curved(linear(np.array([60, 200, 90]) / 255) @ MATRIX.T) * 255
    assert np.abs(picture.colour[8, 8] / 257 - np.clip(wanted, 0, 255)).max() < 3
    assert picture.traits.icc == P3


@pytest.mark.parametrize("profile", [b"junk", P3[:200], P3[:16] + b"GRAY" + P3[20:], b"\0" * 500])
def test_a_broken_profile_counts_as_none(profile):
    picture = decode(saved(noisy(), "PNG", icc_profile=profile), LIMITS)
    np.testing.assert_array_equal(picture.colour, np.asarray(noisy(), np.uint16) * 257)
    assert picture.traits.icc is None


def test_a_colour_profile_on_gray_counts_as_none():
    picture = decode(saved(noisy().convert("L"), "PNG", icc_profile=P3), LIMITS)
    np.testing.assert_array_equal(levels_of(picture), np.asarray(noisy().convert("L")))


def levels_of(picture):
    return picture.colour[..., 0] // 257


def test_inks_with_a_profile_follow_it():
    inks = bytes(pyvips.Operation.call("profile_load", "cmyk"))
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    picture = decode(saved(image, "JPEG", quality=95, icc_profile=inks), LIMITS)
    red, green, blue = picture.colour[8, 8] // 257
    assert red < 60
    assert 120 < green < 200  # a printed cyan is darker than (0, 255, 255)
    assert blue > 190
    assert picture.traits.icc is None
