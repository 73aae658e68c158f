from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data

from serve_app import faces
from serve_app.faces import find_faces
from serve_app.levels import Levels
from serve_app.tiling.geometry import Tile

FACE = (120, 222)  # the astronaut's nose, row and column of 512


def levels(pixels: np.ndarray, side: int | None = None) -> Levels:
    picture = Image.fromarray(
        np.atleast_3d(pixels)[..., :3].repeat(3 // np.atleast_3d(pixels).shape[2], 2)
    )
    if side is not None:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture).astype(np.uint16) * 257


def holds(place: Tile, row: float, column: float) -> bool:
    return place.top <= row < place.bottom and place.left <= column < place.right


@pytest.mark.parametrize("side", [512, 256, 170, 128])
def test_a_face_is_found_at_many_sizes(side: int):
    (place,) = find_faces(levels(data.astronaut(), side))
    assert holds(place, *(at * side / 512 for at in FACE))
    assert place.height == pytest.approx(0.3 * side, rel=0.3)


def test_two_faces_are_two():
    one = levels(data.astronaut(), 256)
    found = find_faces(np.concatenate([one, one[:, ::-1]], axis=1))
    assert len(found) == 2
    assert found == sorted(found)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "brick", "grass", "rocket", "page"])
def test_what_is_no_face_is_none(name: str):
    assert find_faces(levels(getattr(data, name)())) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (2000, 1), (7, 9)])
def test_any_size(shape: tuple[int, int]):
    assert find_faces(np.full((*shape, 3), 30000, np.uint16)) == []


def test_a_large_picture_is_read_at_a_bounded_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faces, "_MOST_PIXELS", 512 * 512)
    one = levels(data.astronaut(), 1024)
    (place,) = find_faces(one)
    assert holds(place, 2 * FACE[0], 2 * FACE[1])


def test_a_place_stays_inside_the_picture():
    cut = levels(data.astronaut())[60:200, 170:290]
    for place in find_faces(np.ascontiguousarray(cut)):
        assert place.top >= 0
        assert place.left >= 0
        assert place.bottom <= 140
        assert place.right <= 120
