from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from serve_app.contracts import OutputFormat
from serve_app.imaging.encode import encode
from serve_app.imaging.frames import Frames
from serve_app.imaging.join import join
from serve_app.imaging.provenance import SOFTWARE, read_provenance
from serve_app.settings import ImageLimits
from tests.unit.imaging.moving import frames_of, rgba
from tests.unit.imaging.pictures import noisy, saved
from tests.unit.imaging.results import PROVENANCE, XMP, camera_exif, look, p3, smooth

MOVING = [OutputFormat.PNG, OutputFormat.WEBP, OutputFormat.AVIF]
DURATIONS_MS = (30, 70, 40, 500)
TOLD = {**PROVENANCE, "parameters": {"output_format": "webp", "steps": 4}}


def files(alpha=False, gray=False, **told):
    """Three pictures as results are: PNG files."""
    found = []
    for turn in range(3):
        colour = np.ascontiguousarray(np.roll(smooth(), 9 * turn, axis=0))
        if gray:
            colour[:] = colour.mean(axis=2, keepdims=True)
        opacity = np.roll(smooth()[:, :, 0], 9 * turn, axis=1) if alpha else None
        given = {"gray": gray, "bit_depth": 8, **told}
        found.append(encode(colour, opacity, look(OutputFormat.PNG, **given)))
    return found


def joined(pictures, kind, plays=2, quality=95, provenance=None):
    frames = Frames([], (0, 1, 0, 2), DURATIONS_MS, plays, gray=False)
    return join(frames, lambda at: pictures[at], kind, quality, provenance or {}, ImageLimits())


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
def test_each_frame_comes_back(kind, alpha, gray):
    pictures = files(alpha, gray)
    found = frames_of(joined(pictures, kind))
    assert len(found) == 4
    for at, frame in zip((0, 1, 0, 2), found, strict=True):
        seen, expected = (_premultiplied(one) for one in (frame, rgba(pictures[at])))
        worst = 0 if kind is OutputFormat.PNG else 3
        assert np.abs(seen - expected).mean() <= worst


@pytest.mark.parametrize("kind", MOVING)
def test_durations_and_plays_come_back(kind):
    with Image.open(BytesIO(joined(files(), kind))) as image:
        durations_ms = []
        for at in range(image.n_frames):
            image.seek(at)
            image.load()
            durations_ms.append(image.info["duration"])
        assert image.info.get("loop", 2) == 2  # an AVIF does not say
    assert tuple(durations_ms) == DURATIONS_MS


def test_what_plays_for_ever_does_so_still():
    for kind in (OutputFormat.PNG, OutputFormat.WEBP):
        with Image.open(BytesIO(joined(files(), kind, plays=0))) as image:
            assert image.info["loop"] == 0


@pytest.mark.parametrize("kind", MOVING)
def test_profile_and_metadata_are_those_of_the_first_frame(kind):
    pictures = files(icc=p3(), exif=camera_exif(), xmp=XMP, provenance=PROVENANCE)
    data = joined(pictures, kind, provenance=TOLD)
    with Image.open(BytesIO(data)) as image:
        image.load()
        assert image.info["icc_profile"] == p3()
        assert image.getexif()[0x0131] == SOFTWARE
        assert image.getexif().get(0x0112, 1) == 1
        assert b"Ada &amp; Bob" in image.info["xmp"]


@pytest.mark.parametrize("kind", [OutputFormat.WEBP, OutputFormat.AVIF])
def test_the_provenance_is_the_results_own(kind):
    data = joined(files(provenance=PROVENANCE), kind, provenance=TOLD)
    found = read_provenance(data)
    assert found is not None
    assert found["parameters"] == TOLD["parameters"]


def test_a_png_is_not_encoded_again():
    pictures = files()
    data = joined(pictures, OutputFormat.PNG)
    stored = pictures[1]
    pixels = stored[stored.index(b"IDAT") + 4 : stored.index(b"IEND") - 8]
    assert pixels in data


@pytest.mark.parametrize("kind", [OutputFormat.WEBP, OutputFormat.AVIF])
def test_frames_are_opened_one_after_the_other(kind):
    pictures, asked = files(), []

    def take(at):
        asked.append(at)
        return pictures[at]

    join(Frames([], (0, 1, 0, 2), DURATIONS_MS, 0, gray=False), take, kind, 90, {}, ImageLimits())
    assert asked[0] == 0  # what it says of itself
    assert 0 <= len(asked) - 5 <= 1
    assert [at for at in asked if at][:2] == [1, 2]


def test_frames_of_two_kinds_are_an_error():
    other = saved(noisy(), "PNG")
    for kind in MOVING:
        with pytest.raises(ValueError, match="another size or kind"):
            joined([files()[0], other, other], kind)


def _premultiplied(picture):
    wide = picture.astype(float)
    return np.dstack([wide[:, :, :3] * wide[:, :, 3:] / 255, wide[:, :, 3]])
