from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from serve_app.imaging import apng
from tests.unit.imaging import moving
from tests.unit.imaging.moving import DURATIONS_MS, STORY, frames_of, letters, rgba
from tests.unit.imaging.pictures import chunk, noisy, png, saved


def joined(files, durations_ms, plays=0):
    file = BytesIO()
    apng.join(file, files, durations_ms, plays)
    return file.getvalue()


@pytest.mark.parametrize("hidden", [False, True])
def test_each_frame_is_a_file_of_its_own(hidden):
    shots, plays = apng.take_apart(moving.apng(STORY, plays=3, hidden=hidden))
    assert plays == 3
    first, *others = [letters(rgba(shot.alone())) for shot in shots]
    assert first == (STORY[0].rows if hidden else moving.SHOWN[0])
    assert others == [part.rows for part in STORY[1:]]
    assert tuple(shot.duration_ms for shot in shots) == DURATIONS_MS


def test_palettes_belong_to_all_frames():
    images = [noisy().quantize(8), noisy().transpose(Image.Transpose.ROTATE_180).quantize(8)]
    images[1].putpalette(images[0].getpalette())
    data = saved(images[0], "PNG", save_all=True, append_images=images[1:], duration=20)
    shots, _ = apng.take_apart(data)
    for shot, image in zip(shots, images, strict=True):
        assert np.array_equal(apng.read(shot.alone()), np.asarray(image.convert("RGB")))


def test_sixteen_bits_stay():
    deep = png(2, 16, 0, [b"\x12\x34\x56\x78"])
    shots, _ = apng.take_apart(joined([deep, deep], [10, 10]))
    for shot in shots:
        assert apng.read(shot.alone()).ravel().tolist() == [0x1234, 0x5678]


def test_joined_frames_come_back():
    images = [noisy(), noisy().transpose(Image.Transpose.ROTATE_180), noisy()]
    files = [saved(image, "PNG") for image in images]
    data = joined(files, [10, 70_000, 16_777_215], plays=2)
    with Image.open(BytesIO(data)) as found:
        assert (found.n_frames, found.info["loop"], found.default_image) == (3, 2, False)
        for at, image in enumerate(images):
            found.seek(at)
            assert np.array_equal(np.asarray(found), np.asarray(image))
    durations_ms = [shot.duration_ms for shot in apng.take_apart(data)[0]]
    assert durations_ms[:2] == [10, 70_000]
    assert durations_ms[2] == pytest.approx(16_777_215, abs=500)  # a second is the unit by then


def test_what_the_first_frame_says_is_said_of_the_file():
    text = chunk(b"tEXt", b"Title\0Waves")
    files = [png(1, 8, 0, [b"\1"], before=text, after=text.replace(b"Title", b"After"))] * 2
    data = joined(files, [10, 10])
    with Image.open(BytesIO(data)) as found:
        found.load()
        assert found.n_frames == 2
        assert found.info["Title"] == "Waves"
    assert data.count(b"Title") == data.count(b"After") == 1
    assert len(frames_of(data)) == 2


def test_frames_of_another_size_are_an_error():
    with pytest.raises(ValueError, match="another size"):
        joined([png(1, 8, 0, [b"a"]), png(2, 8, 0, [b"ab"])], [10, 10])


def test_a_frame_without_pixels_is_an_error():
    data = moving.apng(STORY)
    at = data.rindex(b"fdAT")
    with pytest.raises(ValueError, match="empty"):
        apng.take_apart(data[:at] + b"noAT" + data[at + 4 :])
