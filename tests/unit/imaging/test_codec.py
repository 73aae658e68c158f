from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.errors import BrokenImage, RequestError, TooLarge
from serve_app.imaging import opening
from serve_app.imaging.codec import decode
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import chunk, exif, ihdr, levels, noisy, png, saved, smooth

LIMITS = ImageLimits()
MAGIC = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("options", [{}, {"compress_level": 9}])
def test_png_is_exact(options):
    image = noisy()
    picture = decode(saved(image, "PNG", **options), LIMITS)
    assert picture.colour.dtype == np.uint16
    assert (picture.height, picture.width) == (48, 64)
    assert picture.alpha is None
    np.testing.assert_array_equal(picture.colour, np.asarray(image, np.uint16) * 257)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossy_formats_are_near(kind, options):
    picture = decode(saved(smooth(), kind, **options), LIMITS)
    assert np.abs(levels(picture.colour) - np.asarray(smooth()).astype(int)).max() <= 6


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(kind):
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(first, kind, save_all=True, append_images=[second], duration=50, **options)
    np.testing.assert_array_equal(levels(decode(data, LIMITS).colour)[4, 4], [250, 0, 0])


def test_of_two_pictures_in_one_jpeg_the_first():
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 200))
    data = saved(first, "MPO", save_all=True, append_images=[second])
    red, _, blue = levels(decode(data, LIMITS).colour)[8, 8]
    assert red > 190
    assert blue < 10


def test_long_and_thin():
    picture = decode(saved(Image.new("RGB", (12000, 300), (1, 2, 3)), "PNG"), LIMITS)
    assert picture.colour.shape == (300, 12000, 3)
    assert tuple(levels(picture.colour)[299, 11999]) == (1, 2, 3)


FILES = {
    "png": saved(noisy(), "PNG"),
    "png of many chunks": saved(noisy(200, 200), "PNG"),
    "jpeg": saved(noisy(), "JPEG"),
    "progressive": saved(noisy(), "JPEG", progressive=True),
    "webp": saved(noisy(), "WEBP"),
    "lossless webp": saved(noisy(), "WEBP", lossless=True),
    "webp with alpha": saved(noisy().convert("RGBA"), "WEBP", exif=exif(1)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_broken(name):
    data = FILES[name]
    whole = decode(data, LIMITS).colour
    for end in range(16, len(data), max(1, len(data) // 40)):
        with pytest.raises(BrokenImage) as caught:
            decode(data[:end], LIMITS)
        assert caught.value.field == "image"
        assert caught.value.allowed == "a whole PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP or GIF file"
    for end in range(len(data) - 16, len(data)):  # without its last bytes: broken, or all there
        with contextlib.suppress(BrokenImage):
            np.testing.assert_array_equal(decode(data[:end], LIMITS).colour, whole)


@pytest.mark.parametrize("name", FILES)
@settings(deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_bent_bytes_decode_or_are_one_of_our_errors(name, places):
    bent = bytearray(FILES[name])
    for place, value in places:
        bent[place % len(bent)] = value
    try:
        picture = decode(bytes(bent), ImageLimits(source_pixels=10**6))
    except RequestError as error:
        refused = error
    else:
        assert picture.colour.dtype == np.uint16
        return
    assert refused.field == "image"
    assert refused.allowed


@pytest.mark.parametrize(
    "data",
    [
        MAGIC + ihdr(4, 4) + chunk(b"IEND"),
        MAGIC + ihdr(4, 4) + chunk(b"IDAT", b"no zlib stream") + chunk(b"IEND"),
        MAGIC + ihdr(4, 4, depth=7) + chunk(b"IDAT", b"") + chunk(b"IEND"),
        MAGIC + ihdr(4, 4, colour_type=9) + chunk(b"IDAT", b"") + chunk(b"IEND"),
        png(4, 8, 3, [b"\0\1\2\3"]),
        b"\xff\xd8\xff\xc3\0\x11\x08\0\x10\0\x10\x03\1\x11\0\2\x11\1\3\x11\1\xff\xda" + b"\0" * 30,
        FILES["webp"][:20] + b"\0" * 400,
    ],
    ids=["no pixels", "no zlib", "7 bits", "colour type 9", "no palette", "lossless jpeg", "zeros"],
)
def test_a_good_header_before_nonsense_is_broken(data):
    with pytest.raises(BrokenImage) as caught:
        decode(data, LIMITS)
    assert caught.value.field == "image"


@pytest.mark.parametrize(
    "error",
    [
        OSError,
        SyntaxError,
        ValueError,
        struct.error,
        EOFError,
        KeyError,
        RuntimeError,
        AssertionError,
    ],
)
def test_whatever_a_decoder_raises_is_broken(monkeypatch, error):
    def fails(_data: bytes) -> None:
        raise error("from the decoder")

    monkeypatch.setitem(opening._OPENERS, "png", fails)
    with pytest.raises(BrokenImage, match="from the decoder"):
        decode(FILES["png"], LIMITS)


@pytest.mark.parametrize("error", [MemoryError, lambda _: RuntimeError("out of memory")])
def test_what_does_not_fit_is_too_large(monkeypatch, error):
    def fails(_data: bytes) -> None:
        raise error("no room")

    monkeypatch.setitem(opening._OPENERS, "png", fails)
    with pytest.raises(TooLarge) as caught:
        decode(FILES["png"], LIMITS)
    assert caught.value.field == "image"
    assert caught.value.allowed == "at most 50000000 pixels"


def test_pillows_own_limit_has_no_say(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("png", "jpeg"):
        assert decode(FILES[name], LIMITS).colour.shape == (48, 64, 3)
