from __future__ import annotations

import contextlib
import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.contracts import OutputFormat
from serve_app.errors import BrokenImage, InvalidParameter, RequestError, TooLarge
from serve_app.imaging import codec
from serve_app.imaging.codec import decode, encode
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import chunk, exif, ihdr, levels, noisy, png, saved, smooth

LIMITS = ImageLimits()
MAGIC = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("options", [{}, {"compress_level": 9}])
def test_png_is_exact(options):
    image = noisy()
    picture = decode(saved(image, "PNG", **options), LIMITS)
    assert picture.colour.dtype == np.float32
    assert (picture.height, picture.width) == (48, 64)
    assert picture.alpha is None
    np.testing.assert_array_equal(picture.colour, np.asarray(image) / np.float32(255))


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
        assert caught.value.allowed == "a whole PNG, JPEG or WebP file"
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
        assert picture.colour.min() >= 0
        assert picture.colour.max() <= 1
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
    def fails(_file: BytesIO) -> Image.Image:
        raise error("from the decoder")

    monkeypatch.setitem(codec._OPENERS, "png", fails)
    with pytest.raises(BrokenImage, match="from the decoder"):
        decode(FILES["png"], LIMITS)


@pytest.mark.parametrize("error", [MemoryError, Image.DecompressionBombError])
def test_what_does_not_fit_is_too_large(monkeypatch, error):
    def fails(_file: BytesIO) -> Image.Image:
        raise error("no room")

    monkeypatch.setitem(codec._OPENERS, "png", fails)
    with pytest.raises(TooLarge) as caught:
        decode(FILES["png"], LIMITS)
    assert caught.value.field == "image"
    assert caught.value.allowed == "at most 50000000 pixels"


def test_pillows_own_limit_has_no_say(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("png", "jpeg"):
        assert decode(FILES[name], LIMITS).colour.shape == (48, 64, 3)


def ramp(height=20, width=30):
    rng = np.random.default_rng(1)
    return rng.random((height, width, 3), dtype=np.float32)


@pytest.mark.parametrize("kind", OutputFormat)
def test_encode_gives_the_format_and_size_asked_for(kind):
    data = encode(ramp(), None, kind, 92)
    with Image.open(BytesIO(data)) as image:
        assert image.format == kind.value.upper()
        assert image.size == (30, 20)
        assert image.mode == "RGB"
        assert not {"exif", "icc_profile", "comment", "xmp"} & set(image.info)


@settings(deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    with_alpha=st.booleans(),
    seed=st.integers(0, 99),
)
def test_png_round_trip_is_exact_where_visible(height, width, with_alpha, seed):
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, (height, width, 3)).astype(np.float32) / 255
    alpha = rng.integers(0, 256, (height, width)).astype(np.float32) / 255 if with_alpha else None
    back = decode(encode(colour, alpha, OutputFormat.PNG, 1), LIMITS)
    if alpha is None:
        assert back.alpha is None
        np.testing.assert_array_equal(back.colour, colour)
    else:
        np.testing.assert_array_equal(back.alpha, alpha)
        np.testing.assert_array_equal(back.colour[alpha > 0], colour[alpha > 0])


def test_encode_clips_and_rounds_half_up():
    values = [-0.5, 0.0, 0.49 / 255, 0.5 / 255, 1.49 / 255, 254.5 / 255, 1.0, 1.7]
    colour = np.repeat(np.array(values, np.float32)[None, :, None], 3, axis=2)
    data = encode(colour, None, OutputFormat.PNG, 90)
    with Image.open(BytesIO(data)) as image:
        assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 0, 1, 1, 255, 255, 255]


def test_bands_join(monkeypatch):
    monkeypatch.setattr(codec, "_BAND_ROWS", 7)
    colour = ramp()
    alpha = colour[:, :, 0]
    with Image.open(BytesIO(encode(colour, alpha, OutputFormat.PNG, 90))) as image:
        np.testing.assert_array_equal(np.asarray(image)[:, :, :3], levels(colour))
        np.testing.assert_array_equal(np.asarray(image)[:, :, 3], levels(alpha))


def test_jpeg_lays_transparency_on_white():
    colour = np.zeros((16, 48, 3), np.float32)
    alpha = np.repeat(np.array([[0.0, 0.5, 1.0]], np.float32), 16, axis=1).repeat(16, axis=0)
    seen = levels(decode(encode(colour, alpha, OutputFormat.JPEG, 95), LIMITS).colour)[8, 8::16, 0]
    assert np.abs(seen - [255, 128, 0]).max() <= 2


def test_webp_keeps_alpha_exactly():
    alpha = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    back = decode(encode(ramp(), alpha, OutputFormat.WEBP, 80), LIMITS)
    np.testing.assert_array_equal(levels(back.alpha), levels(alpha))


@pytest.mark.parametrize(("quality", "sampling"), [(89, (2, 2)), (90, (1, 1)), (100, (1, 1))])
def test_jpeg_keeps_colour_edges_at_high_quality(quality, sampling):
    data = encode(ramp(), None, OutputFormat.JPEG, quality)
    with Image.open(BytesIO(data)) as image:
        assert image.layer[0][1:3] == sampling


def test_quality_is_heeded():
    colour = ramp(64, 64)
    for kind in (OutputFormat.JPEG, OutputFormat.WEBP):
        assert len(encode(colour, None, kind, 95)) > 1.5 * len(encode(colour, None, kind, 40))


@pytest.mark.parametrize(
    ("kind", "width", "limit"),
    [(OutputFormat.WEBP, 16384, "16383"), (OutputFormat.JPEG, 65501, "65500")],
)
def test_a_side_longer_than_the_format_can_state(kind, width, limit):
    with pytest.raises(InvalidParameter, match=limit) as caught:
        encode(np.zeros((1, width, 3), np.float32), None, kind, 90)
    assert caught.value.field == "output_format"
    assert "png" in caught.value.allowed
    fits = encode(np.zeros((1, width - 1, 3), np.float32), None, kind, 90)
    assert decode(fits, LIMITS).width == width - 1
