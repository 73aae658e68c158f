from __future__ import annotations

import struct

import pytest
from PIL import Image

from serve_app.errors import BrokenImage, InvalidParameter, TooLarge, UnsupportedImage
from serve_app.imaging.containers import SourceFormat
from serve_app.imaging.inspect import ALLOWED_FORMATS, inspect
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import chunk, exif, ihdr, noisy, png, saved, smooth

LIMITS = ImageLimits()
MAGIC = b"\x89PNG\r\n\x1a\n"
LYING_PNG = MAGIC + ihdr(50_000, 50_000) + chunk(b"IDAT", b"\0" * 20) + chunk(b"IEND")
LYING_WEBP = (
    b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\0\0\0"
    + (16382).to_bytes(3, "little") * 2
)  # fmt: skip
LYING_JPEG = b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65500, 65500) + b"\x03" + b"\0" * 9


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (smooth(40, 60), "PNG", {}, (SourceFormat.PNG, 40, 60, False)),
        (smooth(40, 60), "JPEG", {}, (SourceFormat.JPEG, 40, 60, False)),
        (smooth(40, 60), "JPEG", {"progressive": True}, (SourceFormat.JPEG, 40, 60, False)),
        (smooth(40, 60), "WEBP", {}, (SourceFormat.WEBP, 40, 60, False)),
        (smooth(40, 60), "WEBP", {"lossless": True}, (SourceFormat.WEBP, 40, 60, False)),
        (Image.new("RGBA", (9, 5), (1, 2, 3, 90)), "PNG", {}, (SourceFormat.PNG, 5, 9, True)),
        (Image.new("RGBA", (9, 5), (1, 2, 3, 90)), "WEBP", {}, (SourceFormat.WEBP, 5, 9, True)),
        (
            Image.new("RGBA", (9, 5), (1, 2, 3, 90)),
            "WEBP",
            {"lossless": True},
            (SourceFormat.WEBP, 5, 9, True),
        ),
        (Image.new("LA", (3, 4), (8, 9)), "PNG", {}, (SourceFormat.PNG, 4, 3, True)),
        (Image.new("RGB", (3, 4)), "PNG", {"transparency": (0, 0, 0)}, (SourceFormat.PNG, 4, 3, True)),
        (Image.new("RGB", (1, 1)), "PNG", {}, (SourceFormat.PNG, 1, 1, False)),
        (Image.new("RGB", (12000, 300)), "JPEG", {}, (SourceFormat.JPEG, 300, 12000, False)),
        (Image.new("RGB", (65500, 1)), "PNG", {}, (SourceFormat.PNG, 1, 65500, False)),
    ],
)  # fmt: skip
def test_reads_what_the_encoder_wrote(image, kind, options, expected):
    header = inspect(saved(image, kind, **options), LIMITS)
    assert (header.format, header.height, header.width, header.has_alpha) == expected
    assert header.orientation == 1
    assert header.bit_depth == 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_size_is_the_size_as_seen(kind, order, orientation):
    block = exif(orientation, order)
    prefix = b"Exif\0\0" if kind == "JPEG" else b""
    header = inspect(saved(smooth(40, 60), kind, exif=prefix + block), LIMITS)
    assert header.orientation == orientation
    assert (header.height, header.width) == ((40, 60) if orientation < 5 else (60, 40))


def test_exif_behind_the_pixels_of_a_png_counts():
    data = png(3, 8, 0, [b"abc"], after=chunk(b"eXIf", exif(6)))
    assert (inspect(data, LIMITS).height, inspect(data, LIMITS).width) == (3, 1)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_impossible_orientation_is_none(value):
    assert inspect(saved(smooth(), "PNG", exif=exif(value)), LIMITS).orientation == 1


def test_exif_cut_anywhere_is_upright_or_right():
    block = exif(6)
    for end in range(len(block)):
        data = png(3, 8, 0, [b"abc"], before=chunk(b"eXIf", block[:end]))
        assert inspect(data, LIMITS).orientation in (1, 6)


def test_nothing_is_an_invalid_parameter():
    with pytest.raises(InvalidParameter) as caught:
        inspect(b"", LIMITS)
    assert caught.value.field == "image"
    assert caught.value.allowed == ALLOWED_FORMATS


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"hello, this is no picture", "no picture"),
        (b"\0" * 500, "no picture"),
        (b"\x89PN", "no picture"),
        (b"RIFF\0\0\0\0AVI LIST", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"BM and then text, no bitmap", "no picture"),
    ],
)
def test_other_formats_are_refused_by_name(data, named):
    with pytest.raises(UnsupportedImage, match=named) as caught:
        inspect(data, LIMITS)
    assert caught.value.field == "image"
    assert caught.value.allowed == ALLOWED_FORMATS


def test_too_many_bytes_names_both_numbers():
    data = saved(noisy(), "PNG")
    with pytest.raises(TooLarge) as caught:
        inspect(data, ImageLimits(upload_bytes=1000))
    assert str(len(data)) in caught.value.detail
    assert "1000" in caught.value.detail
    assert caught.value.field == "image"
    assert caught.value.allowed == "at most 1000 bytes"
    inspect(data, ImageLimits(upload_bytes=len(data)))


@pytest.mark.parametrize(
    ("data", "pixels"),
    [(LYING_PNG, 50_000**2), (LYING_WEBP, 16383**2), (LYING_JPEG + b"\xff\xda", 65500**2)],
    ids=["png", "webp", "jpeg"],
)
def test_a_hundred_bytes_that_claim_gigabytes(data, pixels):
    assert len(data) < 100
    with pytest.raises(TooLarge) as caught:
        inspect(data, LIMITS)
    assert str(pixels) in caught.value.detail
    assert "50000000" in caught.value.detail
    assert caught.value.field == "image"


def test_the_pixel_limit_is_ours_alone():
    data = MAGIC + ihdr(50_000, 50_000) + chunk(b"IDAT", b"\0")
    assert inspect(data, ImageLimits(source_pixels=50_000**2)).height == 50_000
    exact = saved(smooth(40, 60), "PNG")
    assert inspect(exact, ImageLimits(source_pixels=2400)).width == 60
    with pytest.raises(TooLarge):
        inspect(exact, ImageLimits(source_pixels=2399))


@pytest.mark.parametrize(
    "data",
    [
        MAGIC,
        MAGIC + ihdr(4, 4)[:20],
        MAGIC + ihdr(0, 4),
        MAGIC + ihdr(4, 0),
        MAGIC + chunk(b"IDAT", b"\0" * 40),
        MAGIC + b"\xff" * 60,
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"\xff\xd8" + b"\xff" * 100_000,
        b"\xff\xd8\xff\xda\0\0\0\0",
        b"\xff\xd8\xff\xc0\0\x11\x08\0\0\0\x40\x03" + b"\0" * 9 + b"\xff\xda",
        b"RIFF\0\0\0\0WEBP",
        b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0",
        b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0",
        b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0",
        b"RIFF\0\0\0\0WEBPJUNK" + b"\0" * 40,
    ],
)
def test_a_header_that_ends_early_or_makes_no_sense(data):
    with pytest.raises(BrokenImage) as caught:
        inspect(data, LIMITS)
    assert caught.value.field == "image"
    assert caught.value.allowed == "a whole PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP or GIF file"
