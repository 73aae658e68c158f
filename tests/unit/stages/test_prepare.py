"""Pictures are judged, opened and cut a row of tiles at a time."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from skimage import data

from serve_app import faces
from serve_app.contracts import ControlInfo, ResolvedParams, UpscaleParams, resolve
from serve_app.controls.canny import canny
from serve_app.errors import (
    BrokenImage,
    ConfigurationError,
    InvalidParameter,
    RequestError,
    TooLarge,
    UnsupportedImage,
)
from serve_app.imaging.inspect import ALLOWED_FORMATS
from serve_app.levels import Levels, from_levels, to_levels
from serve_app.resample import resize
from serve_app.settings import ImageLimits
from serve_app.stages.prepare import Faces, open_source, outline, prepare
from serve_app.testing import photo_like, png_bytes
from serve_app.tiling.geometry import Size
from serve_app.tiling.grid import Plan, make_plan
from tests.unit.stages.story import (
    LIMITS,
    MODEL,
    decoded,
    params,
    prepared,
    random_picture,
    through,
)
from tests.unit.tiling.layouts import pad_to_canvas

# Crops


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 41)])
def test_crops_are_whole_tiles_ready_to_travel(size: tuple[int, int]):
    image = png_bytes(random_picture(0, *size, 3))
    plan, _, tiles = prepared(image, params(scale=1.5))
    assert len(tiles) == plan.count
    for tile in tiles:
        assert (tile.shape, tile.dtype) == ((32, 32, 3), np.uint16)
        assert tile.flags.c_contiguous
        assert len(pickle.dumps(tile, protocol=5)) < tile.nbytes + 1000  # not the whole canvas


def test_a_small_picture_is_padded_not_stretched():
    picture = random_picture(0, 5, 7, 3)
    _, (tile,), result = through(png_bytes(picture), params(scale=1))
    assert np.array_equal(tile[:5, :7], picture.astype(np.uint16) * 257)
    assert np.array_equal(tile[:9], np.concatenate([tile[:5], tile[3::-1]]))
    assert decoded(result).shape == (5, 7, 3)


# Controls


CONTROLLED = MODEL.model_copy(
    update={
        "controls": {
            "upscale": ControlInfo(picture="source"),
            "canny": ControlInfo(picture="canny"),
            "depth": ControlInfo(picture="depth"),
            "pose": ControlInfo(picture="given"),
        }
    }
)
PICTURE = photo_like(20, 30)


def controlled(*names: str) -> ResolvedParams:
    controls = [{"name": name} for name in names]
    return resolve(UpscaleParams(scale=2.5, controls=controls), CONTROLLED, drawn_seed=0)


def cut(picture: Levels, plan: Plan) -> list[Levels]:
    canvas = pad_to_canvas(np.broadcast_to(picture, (*picture.shape[:2], 3)), plan)
    return [canvas[tile.rows, tile.columns] for tile in plan.tiles]


def halves(height: int, width: int, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Black above, white below."""
    picture = np.zeros((height, width, channels), np.uint8)
    picture[height // 2 :] = 255
    return picture


def test_a_tile_comes_with_a_crop_of_each_control_in_order():
    names = ("pose", "canny")
    plan, source, crops = prepared(
        png_bytes(PICTURE), controlled(*names), {"pose": png_bytes(halves(50, 75))}, CONTROLLED
    )
    _, _, plain = prepared(png_bytes(PICTURE), controlled(), model=CONTROLLED)
    assert plan.count > 1
    assert len(crops) == 3 * plan.count
    assert all((crop.shape, crop.dtype) == ((32, 32, 3), np.uint16) for crop in crops)
    for crop, expected in zip(crops[::3], plain, strict=True):
        assert np.array_equal(crop, expected)
    given = to_levels(halves(50, 75).astype(np.float32) / 255)
    for crop, expected in zip(crops[1::3], cut(given, plan), strict=True):
        assert np.array_equal(crop, expected)
    enlarged = to_levels(resize(from_levels(source.colour), 50, 75))
    for crop, expected in zip(crops[2::3], cut(canny(enlarged, 2.5), plan), strict=True):
        assert np.array_equal(crop, expected)


def test_neighbours_see_the_same_edges_where_they_overlap():
    plan, _, crops = prepared(png_bytes(PICTURE), controlled("canny"), model=CONTROLLED)
    edges = [crop.astype(np.float32) for crop in crops[1::2]]
    seen: dict[tuple[int, int], float] = {}
    for tile, crop in zip(plan.tiles, edges, strict=True):
        for y, x in np.ndindex(crop.shape[:2]):
            place = tile.top + y, tile.left + x
            assert seen.setdefault(place, crop[y, x, 0]) == crop[y, x, 0]
    assert 0 < sum(value > 0 for value in seen.values()) < len(seen) / 2


def test_depth_is_estimated_from_the_source_and_stretched():
    asked: list[Levels] = []

    def depth(colour: Levels) -> Levels:
        asked.append(colour)
        return np.full((4, 5, 1), 257, np.uint16)

    _, source, crops = prepared(
        png_bytes(PICTURE), controlled("depth"), model=CONTROLLED, depth=depth
    )
    assert len(asked) == 1
    assert np.array_equal(asked[0], source.colour)
    assert all((crop == 257).all() for crop in crops[1::2])


def test_a_model_without_an_estimator_says_so():
    with pytest.raises(ConfigurationError):
        prepared(png_bytes(PICTURE), controlled("depth"), model=CONTROLLED)


def test_a_given_picture_is_stretched_and_laid_on_black():
    figure = np.zeros((10, 40, 4), np.uint8)
    figure[5:] = (255, 255, 255, 255)  # white on nothing
    plan, _, crops = prepared(
        png_bytes(PICTURE), controlled("pose"), {"pose": png_bytes(figure)}, CONTROLLED
    )
    first, last = crops[1], crops[-1]
    assert plan.result == Size(50, 75)
    assert (first[:20] == 0).all()
    assert (last[-18:] == 65535).all()


@pytest.mark.parametrize(
    ("asked", "given", "field", "allowed"),
    [
        (("pose",), {}, "control_images.pose", "pictures for: pose"),
        ((), {"pose": b""}, "control_images.pose", "absent"),
        (("canny",), {"canny": b""}, "control_images.canny", "absent"),
        ((), {"upscale": b""}, "control_images.upscale", "absent"),
        (("pose",), {"pose": b""}, "control_images.pose", ALLOWED_FORMATS),
        (("pose",), {"nobody": b""}, "control_images.pose", "pictures for: pose"),
    ],
    ids=["missing", "unasked", "made here", "main", "empty", "wrong name"],
)
def test_pictures_that_do_not_fit_what_was_asked_are_refused_before_decoding(
    asked: tuple[str, ...], given: dict[str, bytes], field: str, allowed: str
):
    stage = prepare(png_bytes(PICTURE), given, controlled(*asked), CONTROLLED, LIMITS, None)
    with pytest.raises(InvalidParameter) as caught:
        next(stage)
    assert (caught.value.field, caught.value.allowed) == (field, allowed)


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"%PDF-1.7", UnsupportedImage), (png_bytes(halves(9, 9))[:60], BrokenImage)],
)
def test_a_given_picture_that_cannot_be_read_is_named(data: bytes, error: type[RequestError]):
    with pytest.raises(error) as caught:
        prepared(png_bytes(PICTURE), controlled("pose"), {"pose": data}, CONTROLLED)
    assert caught.value.field == "control_images.pose"
    assert caught.value.detail.startswith("control_images.pose: ")


def test_a_given_picture_has_the_limits_of_a_source():
    limits = ImageLimits(source_pixels=PICTURE.shape[0] * PICTURE.shape[1])
    large = {"pose": png_bytes(halves(21, 30))}
    with pytest.raises(TooLarge) as caught:
        prepared(png_bytes(PICTURE), controlled("pose"), large, CONTROLLED, limits=limits)
    assert caught.value.field == "control_images.pose"


# Outlines and limits


def test_an_outline_reads_only_the_header():
    whole = png_bytes(random_picture(0, 60, 80, 3))
    found = outline(whole[:64], params(scale=4), MODEL, LIMITS)
    assert found.source == Size(60, 80)
    assert found.plan == make_plan(Size(240, 320), 32, 8, 8)
    with pytest.raises(BrokenImage):
        open_source(whole[:64], params(), LIMITS)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"scale": 4}, "scale"),
        ({}, "scale"),
        ({"width": 400}, "width"),
        ({"height": 400}, "height"),
    ],
    ids=str,
)
def test_a_result_over_the_limit_names_what_was_asked(asked: dict[str, Any], field: str):
    limits = ImageLimits(result_pixels=159_999)
    with pytest.raises(TooLarge) as caught:
        outline(png_bytes(random_picture(0, 100, 100, 3)), params(**asked), MODEL, limits)
    assert caught.value.field == field
    assert caught.value.allowed == "at most 159999 pixels"
    assert "400x400" in caught.value.detail


def test_a_result_at_the_limit_is_made():
    limits = ImageLimits(result_pixels=160_000)
    image = png_bytes(random_picture(0, 100, 100, 3))
    assert outline(image, params(scale=4), MODEL, limits).plan.result == Size(400, 400)


def test_a_source_over_the_limit_names_the_image():
    with pytest.raises(TooLarge) as caught:
        outline(
            png_bytes(random_picture(0, 10, 10, 3)), params(), MODEL, ImageLimits(source_pixels=99)
        )
    assert caught.value.field == "image"


def test_what_is_no_picture_is_refused():
    with pytest.raises(UnsupportedImage):
        outline(b"%PDF-1.7 and more", params(), MODEL, LIMITS)


@pytest.mark.parametrize(("most", "field"), [(159_999, "max_pixels"), (500_000, "scale")])
def test_a_caller_may_lower_the_limit_and_never_raise_it(most: int, field: str):
    limits = ImageLimits(result_pixels=159_999 if field == "scale" else 400_000)
    asked = params(scale=4, max_pixels=most)
    with pytest.raises(TooLarge) as caught:
        outline(png_bytes(random_picture(0, 100, 100, 3)), asked, MODEL, limits)
    assert (caught.value.field, caught.value.allowed) == (field, "at most 159999 pixels")


def test_noise_is_taken_away_before_anything_else():
    image = png_bytes(random_picture(0, 40, 40, 3))
    _, noisy, _ = prepared(image, params(scale=1))
    _, clean, crops = prepared(image, params(scale=1, denoise=1))
    assert clean.colour.std() < 0.9 * noisy.colour.std()
    assert np.array_equal(crops[0][:32, :32], clean.colour[:32, :32])


# Faces


def faces_of(picture: np.ndarray, **asked: Any) -> tuple[Plan, Faces]:
    found, shown, *_ = prepare(png_bytes(picture), {}, params(**asked), MODEL, LIMITS, None)
    return found.plan, shown


def test_the_tiles_that_show_a_face_are_told():
    picture = np.ascontiguousarray(data.astronaut()[::2, ::2])
    plan, shown = faces_of(picture, scale=1.5, face_safe=True)
    assert shown.count == 1
    tiles = [plan.tiles[index] for index in shown.tiles]
    assert 0 < len(tiles) < plan.count / 4
    nose = (60 * 1.5, 111 * 1.5)
    assert any(
        tile.top <= nose[0] < tile.bottom and tile.left <= nose[1] < tile.right for tile in tiles
    )
    assert all(tile.top < 220 * 0.75 for tile in tiles)


def test_nobody_looks_for_faces_unasked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faces, "_detector", None)
    assert faces_of(data.astronaut())[1] == Faces()
    assert faces_of(data.coffee()[:50, :50])[1] == Faces()


def test_a_server_without_the_detector_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serve_app.stages.prepare.can_find", lambda: False)
    with pytest.raises(InvalidParameter, match="no detector") as caught:
        outline(png_bytes(PICTURE), params(face_safe=True), MODEL, LIMITS)
    assert caught.value.field == "face_safe"
    outline(png_bytes(PICTURE), params(), MODEL, LIMITS)
