"""With tiles that come back unchanged, a picture comes back as the plain resize of itself."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.contracts import (
    ControlInfo,
    ModelInfo,
    OutputFormat,
    ResolvedParams,
    UpscaleParams,
    resolve,
)
from serve_app.controls.canny import canny
from serve_app.controls.pictures import DepthEstimator
from serve_app.errors import (
    BrokenImage,
    ConfigurationError,
    InvalidParameter,
    RequestError,
    TooLarge,
    UnsupportedImage,
)
from serve_app.imaging.codec import encode
from serve_app.resample import resize
from serve_app.settings import ImageLimits
from serve_app.stages import Outline, Source, cut, finish, open_source, outline, prepare
from serve_app.testing import photo_like, png_bytes
from serve_app.tiling.blend import blend
from serve_app.tiling.geometry import Size
from serve_app.tiling.grid import Plan, make_plan
from serve_app.tiling.levels import Levels, from_levels, to_levels

LIMITS = ImageLimits()
MODEL = ModelInfo(
    name="small",
    description="Small tiles.",
    license="Apache-2.0",
    tile_px=32,
    overlap_px=8,
    align_px=8,
)


def params(**asked: Any) -> ResolvedParams:
    return resolve(UpscaleParams(**asked), MODEL, drawn_seed=0)


def random_picture(seed: int, *shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


def prepared(
    image: bytes,
    asked: ResolvedParams,
    control_images: Mapping[str, bytes] | None = None,
    model: ModelInfo = MODEL,
    depth: DepthEstimator | None = None,
    limits: ImageLimits = LIMITS,
) -> tuple[Plan, Source, list[Levels]]:
    found, source, *crops = prepare(image, control_images or {}, asked, model, limits, depth)
    return cast(Outline, found).plan, cast(Source, source), cast(list[Levels], crops)


def through(
    image: bytes, asked: ResolvedParams, rounds: int = 0
) -> tuple[Source, list[Levels], bytes]:
    """All stages, with tiles that come back unchanged."""
    plan, source, tiles = prepared(image, asked)
    return source, tiles, finish(plan, asked, rounds, source, tiles)


# Identity


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(1, 8), st.integers(0, 2**32))
def test_any_picture_comes_back_as_its_plain_resize_bit_for_bit(
    height: int, width: int, scale: float, seed: int
):
    image = png_bytes(random_picture(seed, height, width, 3))
    asked = params(scale=scale)
    plan, source, tiles = prepared(image, asked)
    plain = resize(from_levels(source.colour), plan.result.height, plan.result.width)
    assert np.array_equal(to_levels(blend(tiles, plan)), to_levels(plain))
    expected = encode(from_levels(to_levels(plain)), None, OutputFormat.PNG, 92)
    assert finish(plan, asked, 0, source, tiles) == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32))
def test_at_scale_1_the_very_pixels_come_back(height: int, width: int, seed: int):
    picture = random_picture(seed, height, width, 3)
    _, _, result = through(png_bytes(picture), params(scale=1), rounds=3)
    assert np.array_equal(decoded(result), picture)


def test_a_photograph_tied_to_its_source_stays_what_it_is():
    picture = photo_like(50, 70)
    _, _, result = through(png_bytes(picture), params(scale=2.5), rounds=3)
    small = resize(decoded(result).astype(np.float32), 50, 70)
    assert np.abs(small - picture).mean() < 1.5


def test_what_a_tile_drifts_is_taken_back():
    image = png_bytes(photo_like(24, 24))
    plan, source, tiles = prepared(image, params(scale=4))
    drifted = [to_levels(from_levels(tile) * 0.8 + 0.1) for tile in tiles]

    def distance(rounds: int) -> float:
        result = decoded(finish(plan, params(scale=4), rounds, source, drifted))
        return float(
            np.abs(
                resize(result.astype(np.float32) / 255, 24, 24) - from_levels(source.colour)
            ).mean()
        )

    assert distance(3) < 0.2 * distance(0)


# Alpha


def test_alpha_is_kept_and_scaled_like_the_colour():
    picture = random_picture(1, 20, 30, 4)
    source, _, result = through(png_bytes(picture), params(scale=3))
    assert source.alpha is not None
    assert np.array_equal(source.alpha, picture[:, :, 3].astype(np.uint16) * 257)
    pixels = decoded(result)
    assert pixels.shape == (60, 90, 4)
    plain = resize(from_levels(source.alpha), 60, 90).clip(0, 1)
    assert np.abs(pixels[:, :, 3] / 255 - plain).max() <= 0.5 / 255 + 1e-6


def test_an_opaque_picture_has_no_alpha():
    source, _, result = through(png_bytes(random_picture(1, 9, 9, 3)), params(scale=2))
    assert source.alpha is None
    assert decoded(result).shape == (18, 18, 3)


def test_hidden_colour_does_not_leak_into_the_control_picture():
    picture = np.full((24, 24, 4), 255, np.uint8)
    picture[:, :12] = (0, 255, 0, 0)  # invisible green beside visible white
    source, tiles, _ = through(png_bytes(picture), params(scale=2))
    assert all((tile == 65535).all() for tile in tiles)
    assert (source.colour == 65535).all()


def test_faint_colour_does_not_bleed_into_solid_colour():
    picture = np.full((12, 12, 4), 255, np.uint8)
    picture[:, :6] = (0, 255, 0, 2)  # faint green beside solid white
    _, (tile,), _ = through(png_bytes(picture), params(scale=2))
    solid = tile[:24, 12:24]
    assert solid.min() > 0.98 * 65535


def test_a_format_without_alpha_is_laid_on_white():
    picture = np.zeros((16, 16, 4), np.uint8)
    _, _, result = through(png_bytes(picture), params(scale=2, output_format="jpeg"))
    assert decoded(result).min() > 250


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
    pose = list(cut([given], plan))
    for crop, expected in zip(crops[1::3], pose, strict=True):
        assert np.array_equal(crop, expected)
    enlarged = to_levels(resize(from_levels(source.colour), 50, 75))
    for crop, expected in zip(crops[2::3], cut([canny(enlarged, 2.5)], plan), strict=True):
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
        (("pose",), {"pose": b""}, "control_images.pose", "PNG, JPEG or WebP"),
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
    ("data", "error"), [(b"GIF89a!", UnsupportedImage), (png_bytes(halves(9, 9))[:60], BrokenImage)]
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
        open_source(whole[:64], LIMITS)


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
        outline(b"GIF89a and more", params(), MODEL, LIMITS)


def test_a_format_that_cannot_hold_the_result_is_refused():
    plan = make_plan(Size(2, 16400), 32, 8, 8)
    source = Source(np.zeros((2, 16400, 3), np.uint16), None)
    tiles = [np.zeros((32, 32, 3), np.uint16)] * plan.count
    with pytest.raises(InvalidParameter) as caught:
        finish(plan, params(output_format="webp"), 0, source, tiles)
    assert caught.value.field == "output_format"
