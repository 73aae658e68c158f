from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from serve_app.contracts import OutputFormat
from serve_app.errors import BrokenImage, InvalidParameter, TooLarge, UnsupportedImage
from serve_app.imaging.formats import FORMATS
from serve_app.settings import ImageLimits
from serve_app.stages.animate import frame_params, join, split
from serve_app.testing import photo_like, png_bytes
from tests.unit.imaging.moving import STORY, apng, frames_of, gif, rgba
from tests.unit.stages.story import LIMITS, MODEL, params, through


def told(data: bytes, limits: ImageLimits = LIMITS, **asked):
    return split(data, params(**{"scale": 2, "animated": True} | asked), MODEL, limits)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP"])
def test_a_still_picture_is_none_whatever_the_format_of_its_result(kind):
    file = BytesIO()
    Image.fromarray(photo_like(8, 9)).save(file, kind)
    assert told(file.getvalue(), output_format="jpeg") is None


@pytest.mark.parametrize("make", [gif, apng])
def test_frames_are_enlarged_as_the_still_pictures_that_they_are(make):
    asked = params(scale=2, animated=True)
    frames = split(make(STORY), asked, MODEL, LIMITS)
    assert frames is not None
    pictures = [through(picture, asked)[2] for picture in frames.pictures]
    found = frames_of(join(frames, pictures.__getitem__, asked, MODEL, LIMITS))
    for at, frame in zip(frames.shown, found, strict=True):
        assert frame.shape == (10, 12, 4)
        assert np.array_equal(frame, rgba(pictures[at]))
        still = through(png_bytes(rgba(frames.pictures[at])), asked)[2]
        assert np.array_equal(frame, rgba(still))


@pytest.mark.parametrize("output_format", ["jpeg", "tiff", "jxl"])
def test_a_format_that_does_not_move_is_refused(output_format):
    with pytest.raises(InvalidParameter, match=output_format) as caught:
        told(gif(STORY), output_format=output_format)
    assert caught.value.field == "animated"
    assert caught.value.allowed == "output_format of png, webp, avif"


def test_a_frame_that_is_too_large_for_a_format_is_refused(monkeypatch):
    monkeypatch.setitem(
        FORMATS, OutputFormat.AVIF, replace(FORMATS[OutputFormat.AVIF], most_moving_pixels=119)
    )
    with pytest.raises(InvalidParameter, match="12x10 px") as caught:
        told(gif(STORY), output_format="avif")
    assert caught.value.allowed == "output_format of png, webp"


def test_the_pixels_of_all_frames_count():
    assert told(gif(STORY), ImageLimits(result_pixels=600)) is not None
    for limits, asked, field in (
        (ImageLimits(result_pixels=599), {}, "scale"),
        (LIMITS, {"max_pixels": 599}, "max_pixels"),
    ):
        with pytest.raises(TooLarge, match="5 frames of") as caught:
            told(gif(STORY), limits, **asked)
        assert caught.value.field == field
        assert caught.value.allowed == "at most 599 pixels"
    with pytest.raises(TooLarge, match="5 frames are more"):
        told(gif(STORY), ImageLimits(frames=4))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", InvalidParameter),
        (b"no picture", UnsupportedImage),
        (gif(STORY)[:-20], BrokenImage),
        (gif(STORY)[:-14] + b"\1\0\0;", BrokenImage),
    ],
    ids=["empty", "no picture", "cut", "no pixels"],
)
def test_what_cannot_be_read_is_refused(data, error):
    with pytest.raises(error) as caught:
        told(data)
    assert caught.value.field == "image"


def test_frames_are_made_as_the_file_that_holds_them_needs():
    png = params(animated=True, bit_depth=16)
    assert frame_params(png, gray=True) is png
    webp = params(animated=True, output_format="webp")
    found = frame_params(webp, gray=False)
    assert (found.output_format, found.bit_depth) == (OutputFormat.PNG, 8)
    assert found.color_profile == "source"
    assert frame_params(webp, gray=True).color_profile == "srgb"
