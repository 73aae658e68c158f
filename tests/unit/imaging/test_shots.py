from __future__ import annotations

import numpy as np
import pytest

from serve_app.imaging.shots import Disposal, Shot, composed
from tests.unit.imaging.moving import CLEAR, PREVIOUS, SHOWN, STORY, letters

HOW = {CLEAR: Disposal.CLEAR, PREVIOUS: Disposal.PREVIOUS}


def shot(pixels, top=0, left=0, disposal=Disposal.KEEP, over=True):
    height, width = pixels.shape[:2]
    return Shot(height, width, top, left, 10, disposal, over, pixels.tobytes)


def shown(shots, height, width, like):
    def read(data):
        stored = next(s for s in shots if s.alone() == data)
        flat = np.frombuffer(data, like.dtype)
        return flat.reshape(stored.height, stored.width, like.shape[2])

    return [frame.copy() for frame, _ in composed(shots, height, width, read)]


def test_frames_are_seen_on_what_came_before_them():
    shots = [
        shot(part.pixels, part.top, part.left, HOW.get(part.disposal, Disposal.KEEP))
        for part in STORY
    ]
    found = shown(shots, 5, 6, STORY[0].pixels)
    assert [letters(frame) for frame in found] == SHOWN


def test_a_frame_may_stand_in_the_place_of_what_was_there():
    red, clear = np.full((1, 2, 4), 255, np.uint8), np.zeros((1, 1, 4), np.uint8)
    found = shown([shot(red), shot(clear, over=False)], 1, 2, red)
    assert found[1][:, :, 3].tolist() == [[0, 255]]


@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_half_transparent_lies_on_half_transparent(kind, top):
    below = np.array([[[0, 0, top, top // 2 + 1]]], kind)
    above = np.array([[[top, 0, 0, top // 2 + 1]]], kind)
    found = shown([shot(below), shot(above)], 1, 1, above)[1][0, 0] / top
    # Porter and Duff: half of it red; of the rest half blue: two to one, three quarters opaque
    np.testing.assert_allclose(found, [2 / 3, 0, 1 / 3, 3 / 4], atol=0.005)


def test_without_transparency_what_is_bare_is_black():
    small = np.full((1, 1, 3), 9, np.uint8)
    found = shown([shot(small, disposal=Disposal.CLEAR), shot(small, left=1)], 1, 2, small)
    assert [frame[0, :, 0].tolist() for frame in found] == [[9, 0], [0, 9]]


def test_a_frame_outside_of_the_canvas_is_an_error():
    with pytest.raises(ValueError, match="outside"):
        shown([shot(np.zeros((1, 3, 4), np.uint8), left=1)], 1, 3, np.zeros((1, 1, 4), np.uint8))


def test_a_frame_of_another_size_than_told_is_an_error():
    stored = shot(np.zeros((2, 2, 4), np.uint8))
    with pytest.raises(ValueError, match="two different sizes"):
        list(composed([stored], 4, 4, lambda _: np.zeros((1, 2, 4), np.uint8)))
