from __future__ import annotations

from dataclasses import replace
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from serve_app.errors import BrokenImage, TooLarge
from serve_app.imaging.codec import decode
from serve_app.imaging.frames import read_frames
from serve_app.imaging.inspect import inspect
from serve_app.imaging.split import split
from serve_app.imaging.wire import SharedMemory
from serve_app.settings import ImageLimits
from tests.unit.imaging.moving import (
    CLEAR,
    DURATIONS_MS,
    PREVIOUS,
    SHOWN,
    STORY,
    Part,
    apng,
    frames_of,
    gif,
    letters,
    rgba,
    webp,
)
from tests.unit.imaging.pictures import chunk, exif, noisy, smooth
from tests.unit.imaging.results import p3

LIMITS = ImageLimits()
WHOLE = Part(0, 0, "rgbwrg wrgbwr bwrgbw gbwrgb rrrrrr")


def parted(data, limits=LIMITS, count=None):
    memory = SharedMemory.create()
    try:
        message = split(data, limits, "image", memory)
        found = len(message["shown"]) if count is None else count
        reading = SharedMemory(memory.descriptor)
        return read_frames(message, reading, inspect(data, limits), count=found)
    finally:
        memory.close()


def moved(kind, images, **options):
    file = BytesIO()
    images[0].save(file, kind, save_all=True, append_images=images[1:], **options)
    return file.getvalue()


@pytest.mark.parametrize("make", [gif, apng], ids=["gif", "png"])
def test_frames_are_composed(make):
    found = parted(make(STORY))
    assert [letters(rgba(found.pictures[at])) for at in found.shown] == SHOWN
    assert found.durations_ms == DURATIONS_MS
    assert not found.gray


def test_webps_frames_are_as_libwebp_composes_them():
    parts = [
        WHOLE,
        Part(2, 2, "g.g .b. g.g", CLEAR, 70),
        Part(0, 0, "w. .w", over=False),
        Part(4, 2, "b.", duration_ms=500),
    ]
    data = webp(parts, loop=3)
    found = parted(data)
    expected = [letters(frame) for frame in frames_of(data)]
    assert [letters(rgba(found.pictures[at])) for at in found.shown] == expected
    assert len(set(expected)) == 4
    assert (found.durations_ms, found.plays) == ((50, 70, 50, 500), 3)


@pytest.mark.parametrize(("kind", "options"), [("AVIF", {"quality": 95}), ("WEBP", {})])
def test_lossy_frames_are_as_their_decoder_gives_them(kind, options):
    images = [smooth(), smooth().rotate(180), smooth().rotate(90, expand=False)]
    data = moved(kind, images, duration=[30, 80, 60], **options)
    found = parted(data)
    for at, expected in zip(found.shown, frames_of(data), strict=True):
        assert np.abs(rgba(found.pictures[at]).astype(int) - expected).max() <= 1
    assert found.durations_ms == (30, 80, 60)


def test_a_duration_of_nothing_is_what_viewers_make_of_it():
    parts = [WHOLE, Part(1, 1, "g", duration_ms=0)]
    assert parted(gif(parts)).durations_ms == (50, 100)


def test_frames_that_look_alike_are_one_picture():
    parts = [WHOLE, Part(0, 0, "r"), Part(2, 2, "w"), Part(2, 2, "g"), Part(2, 2, "w")]
    found = parted(gif(parts))
    assert found.shown == (0, 0, 1, 2, 1)
    assert len(found.pictures) == 3


@pytest.mark.parametrize("disposal", [CLEAR, PREVIOUS])
@pytest.mark.parametrize("make", [gif, partial(apng, opaque=True)], ids=["gif", "png"])
def test_what_frames_without_transparency_bare_is_transparent(make, disposal):
    """For lack of a place to say so it would come out black."""
    found = parted(make([replace(WHOLE, disposal=disposal), Part(1, 1, "gg")]))
    bare = "......"
    assert [letters(rgba(found.pictures[at])) for at in found.shown] == [
        WHOLE.rows,
        " ".join([bare, ".gg...", bare, bare, bare]),
    ]
    kept = parted(make([WHOLE, Part(1, 1, "gg", disposal)]))
    assert all(Image.open(BytesIO(file)).mode in ("RGB", "P") for file in kept.pictures)


def test_a_frame_decodes_to_what_it_shows():
    found = parted(apng(STORY))
    picture = decode(found.pictures[1], LIMITS)
    assert picture.alpha is not None
    assert (picture.alpha > 0).sum() == sum(letter != "." for letter in SHOWN[1].replace(" ", ""))


def test_opaque_and_gray_stay_so():
    found = parted(moved("GIF", [noisy(), noisy().rotate(180)]))
    assert all(Image.open(BytesIO(file)).mode == "RGB" for file in found.pictures)
    gray = [noisy().convert("L"), noisy().convert("L").rotate(180)]
    for kind in ("GIF", "PNG"):
        found = parted(moved(kind, gray))
        assert found.gray
        assert all(Image.open(BytesIO(file)).mode == "L" for file in found.pictures)
        expected = [np.asarray(image.convert("RGBA")) for image in gray]
        assert [rgba(file).tolist() for file in found.pictures] == [e.tolist() for e in expected]


@pytest.mark.parametrize(
    ("kind", "turn"), [("PNG", 6), ("WEBP", 6), ("AVIF", 1)]
)  # Pillow dies of writing an AVIF of frames that are turned
def test_profile_orientation_and_metadata_go_with_each_frame(kind, turn):
    images = [smooth(), smooth().rotate(180)]
    given = {"icc_profile": p3(), "exif": b"Exif\0\0" + exif(turn)}
    found = parted(moved(kind, images, **given))
    for file in found.pictures:
        picture = decode(file, LIMITS)
        assert inspect(file, LIMITS).orientation == turn
        assert (picture.height, picture.width) == ((60, 40) if turn == 6 else (40, 60))
        assert picture.traits.icc == p3()
        assert picture.traits.exif is not None


def test_a_profile_for_other_channels_does_not_go_along():
    found = parted(moved("PNG", [noisy().convert("L"), noisy().convert("L").rotate(180)]))
    assert decode(found.pictures[0], LIMITS).traits.icc is None


def test_metadata_that_would_weigh_too_much_with_every_frame_is_refused():
    data = moved("WEBP", [smooth(), smooth().rotate(180)], xmp=b"x" * 3000)
    assert len(parted(data, ImageLimits(upload_bytes=6000)).pictures) == 2
    with pytest.raises(TooLarge, match="with each of 2 frames"):
        parted(data, ImageLimits(upload_bytes=5999))


@pytest.mark.parametrize(
    "data",
    [
        gif([WHOLE, Part(4, 4, "rrr")]),
        apng([WHOLE, Part(4, 4, "rrr")]),
        apng([WHOLE, Part(0, 0, "r", over=False)])[:-30] + chunk(b"IEND"),
        gif([WHOLE, WHOLE]).replace(b"\x2c\0\0\0\0\6\0\5\0", b"\x2c\0\0\0\0\6\0\4\0", 1)[:60],
    ],
    ids=["gif outside", "png outside", "png cut", "gif cut"],
)
def test_what_makes_no_sense_is_broken(data):
    with pytest.raises(BrokenImage):
        parted(data)
