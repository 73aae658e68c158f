from __future__ import annotations

import struct
from io import BytesIO

import pytest
from PIL import Image

from serve_app.errors import BrokenImage, TooLarge
from serve_app.imaging.inspect import inspect
from serve_app.imaging.motion import count_frames
from serve_app.settings import ImageLimits
from tests.unit.imaging.moving import STORY, Part, apng, gif, webp
from tests.unit.imaging.pictures import chunk, noisy, png, saved

LIMITS = ImageLimits()
TWO = [Part(0, 0, "rg br"), Part(0, 0, "gr rb")]


def counted(data: bytes, limits: ImageLimits = LIMITS) -> int:
    return count_frames(data, inspect(data, limits), limits)


def moved(kind: str, count: int = 3) -> bytes:
    images = [noisy()] + [noisy().rotate(90 * at, expand=False) for at in range(1, count)]
    file = BytesIO()
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=40)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("count", [2, 7])
def test_frames_are_counted(kind, count):
    assert counted(moved(kind, count)) == count


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "JPEG", "TIFF", "BMP"])
def test_a_still_picture_has_one(kind):
    assert counted(saved(noisy(), kind)) == 1


def test_pages_are_no_frames():
    assert counted(saved(noisy(), "TIFF", save_all=True, append_images=[noisy()] * 3)) == 1


def test_a_default_picture_is_no_frame():
    assert counted(apng(STORY, hidden=True)) == 5


def test_a_file_without_any_is_for_the_decoder():
    assert counted(gif([])) == 0
    assert counted(apng([])) == 0
    assert counted(webp([])) == 0


def test_webps_without_the_flag_are_still():
    data = bytearray(webp(TWO, 2, 2))
    data[20] &= ~2
    assert counted(bytes(data)) == 1


@pytest.mark.parametrize(
    "data",
    [
        gif(STORY)[:-20],
        apng(STORY)[:-50],
        webp(TWO, 2, 2)[:-6],
        apng(STORY).replace(b"fcTL", b"fcTX", 1),
        apng(STORY).replace(struct.pack(">II", 5, 0), struct.pack(">II", 6, 0), 1),
        gif(STORY)[:-1] + b"\x99\x99;",
        png(1, 8, 0, [b"a"], before=chunk(b"acTL", b"\0\0")),
    ],
    ids=["gif", "png", "webp", "lost frame", "other count", "unknown block", "short acTL"],
)
def test_damage_between_frames_is_told(data):
    with pytest.raises(BrokenImage) as caught:
        counted(data)
    assert caught.value.field == "image"


def test_a_limit_on_frames():
    tight = ImageLimits(frames=4)
    assert counted(gif(STORY[:4]), tight) == 4
    with pytest.raises(TooLarge, match="5 frames are more than the limit of 4") as caught:
        counted(gif(STORY), tight)
    assert caught.value.allowed == "at most 4 frames"


def test_ten_thousand_frames_are_too_many():
    dot = Part(0, 0, "r")
    for data in (gif([dot] * 10_000, 1, 1), webp([dot] * 10_000, 1, 1)):
        with pytest.raises(TooLarge, match="10000 frames"):
            counted(data)


def test_the_pixels_of_all_frames_count_together():
    assert counted(gif(STORY), ImageLimits(source_pixels=150)) == 5
    with pytest.raises(TooLarge, match="5 frames of 6x5 are 150 pixels"):
        counted(gif(STORY), ImageLimits(source_pixels=149))
    with Image.open(BytesIO(moved("AVIF", 2))) as image:
        assert image.n_frames == 2
