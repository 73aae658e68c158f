"""With tiles that come back unchanged, a picture comes back as the plain resize of itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.contracts import ColorFix
from serve_app.errors import InvalidParameter
from serve_app.fidelity.correction import Correction
from serve_app.fidelity.noise import judge_source, lowered
from serve_app.imaging.codec import decode
from serve_app.imaging.encode import encode
from serve_app.imaging.provenance import read_provenance
from serve_app.imaging.traits import Traits
from serve_app.levels import from_levels, to_levels
from serve_app.resample import resize
from serve_app.stages.enlarge import Source
from serve_app.stages.finish import Finish, _look
from serve_app.testing import photo_like, png_bytes
from serve_app.tiling.blend import blend
from serve_app.tiling.geometry import Size
from serve_app.tiling.grid import make_plan
from tests.unit.stages.story import (
    LIMITS,
    MODEL,
    decoded,
    finished,
    params,
    prepared,
    random_picture,
    through,
)

# Identity


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(1, 8),
    st.sampled_from([8, 16]),
    st.integers(0, 99),
)
def test_any_picture_comes_back_as_its_plain_resize_bit_for_bit(
    height: int, width: int, scale: float, bit_depth: int, seed: int
):
    image = png_bytes(random_picture(seed, height, width, 3))
    asked = params(scale=scale, bit_depth=bit_depth)
    plan, source, tiles = prepared(image, asked)
    size = plan.result
    plain = to_levels(resize(from_levels(source.colour), size.height, size.width))
    assert np.array_equal(to_levels(blend(tiles, plan)), plain)
    result = finished(plan, asked, source, tiles).image
    expected = encode(from_levels(plain), None, _look(asked, MODEL, source))
    found, wanted = decode(result, LIMITS), decode(expected, LIMITS)
    assert np.array_equal(found.colour, wanted.colour)
    if bit_depth == 16:
        assert np.array_equal(found.colour, plain)


def test_the_bands_of_a_larger_picture_make_the_same_whole():
    picture = random_picture(1, 300, 90, 3)
    asked = params(scale=3.1, bit_depth=16)
    plan, source, tiles = prepared(png_bytes(picture), asked)
    size = plan.result
    plain = to_levels(resize(from_levels(source.colour), size.height, size.width))
    assert size.height > 4 * 128
    result = decode(finished(plan, asked, source, tiles).image, LIMITS)
    assert np.array_equal(result.colour, plain)


@pytest.mark.parametrize("fidelity", [0.5, 1.0])
def test_corrected_in_bands_is_corrected_at_once(fidelity: float):
    picture = photo_like(150, 40)
    asked = params(scale=4, bit_depth=16, fidelity=fidelity, color_fix="wavelet")
    plan, source, tiles = prepared(png_bytes(picture), asked)
    drifted = [to_levels(from_levels(tile) * 0.8 + 0.1) for tile in tiles]
    size, rounds = plan.result, MODEL.backprojection_rounds
    correction = Correction(
        source.colour, size.height, size.width, fidelity, rounds, ColorFix.WAVELET
    )
    whole = np.concatenate(list(correction.add(blend(drifted, plan))))
    result = decode(finished(plan, asked, source, drifted).image, LIMITS)
    difference = result.colour.astype(int) - to_levels(whole)
    assert (
        np.abs(difference).max() <= 1
    )  # of 65535: how a product is cut changes the last bit of a sum


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32))
def test_at_scale_1_the_very_pixels_come_back(height: int, width: int, seed: int):
    picture = random_picture(seed, height, width, 3)
    _, _, result = through(png_bytes(picture), params(scale=1, fidelity=1))
    assert np.array_equal(decoded(result), picture)


def test_a_photograph_tied_to_its_source_stays_what_it_is():
    picture = photo_like(50, 70)
    _, _, result = through(png_bytes(picture), params(scale=2.5, fidelity=1))
    small = resize(decoded(result).astype(np.float32), 50, 70)
    assert np.abs(small - picture).mean() < 1.5


def test_what_a_tile_drifts_is_taken_back():
    image = png_bytes(photo_like(24, 24))
    plan, source, tiles = prepared(image, params(scale=4))
    drifted = [to_levels(from_levels(tile) * 0.8 + 0.1) for tile in tiles]

    def distance(fidelity: float) -> float:
        asked = params(scale=4, fidelity=fidelity)
        result = decoded(finished(plan, asked, source, drifted).image)
        return float(
            np.abs(
                resize(result.astype(np.float32) / 255, 24, 24) - from_levels(source.colour)
            ).mean()
        )

    assert distance(1) < 0.2 * distance(0)


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


# Files


def test_a_format_that_cannot_hold_the_result_is_refused():
    plan = make_plan(Size(2, 16400), 32, 8, 8)
    source = Source(np.zeros((2, 16400, 3), np.uint16), None, Traits())
    with pytest.raises(InvalidParameter) as caught:
        Finish(plan, params(output_format="webp"), MODEL, source, LIMITS)
    assert caught.value.field == "output_format"


def test_a_result_that_is_given_up_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked = params(scale=4)
    plan, source, tiles = prepared(png_bytes(photo_like(24, 24)), asked)
    with Finish(plan, asked, MODEL, source, LIMITS) as finish:
        finish.add(tiles[: len(plan.lefts)])
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


# Report


def test_the_report_says_what_acted_and_what_was_measured():
    image = png_bytes(photo_like(48, 48))
    asked = params(scale=2, fidelity=None, color_fix="wavelet")
    plan, source, tiles = prepared(image, asked)
    report = finished(plan, asked, source, tiles).report
    faults = judge_source(source.colour)
    assert (report.noise, report.blocking) == (faults.noise, faults.blocking)
    assert report.fidelity == lowered(MODEL.defaults.fidelity, faults)
    assert report.lr_psnr_db > 30
    assert report.color_error_mean < 2
    given = params(scale=2, fidelity=0.25)
    assert finished(plan, given, source, tiles).report.fidelity == 0.25


def test_the_file_says_how_it_was_made():
    asked = params(scale=2)
    _, _, result = through(png_bytes(photo_like(9, 9)), asked)
    found = read_provenance(result)
    assert found is not None
    assert (found["model"], found["seed"]) == ("small", 0)
    assert found["parameters"] == asked.model_dump(mode="json")


def test_gray_stays_gray():
    picture = random_picture(1, 20, 20)
    _, _, result = through(png_bytes(picture), params(scale=2))
    assert decoded(result).shape == (40, 40)


def test_the_file_can_be_had_in_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serve_app.stages.finish._PIECE_BYTES", 100)
    asked = params(scale=2)
    plan, source, tiles = prepared(png_bytes(random_picture(1, 12, 20, 3)), asked)
    whole = finished(plan, asked, source, tiles)
    with Finish(plan, asked, MODEL, source, LIMITS) as finish:
        finish.add(tiles)
        assert finish.close() == whole.report
        pieces = list(finish.pieces())
    assert {len(piece) for piece in pieces[:-1]} == {100}
    assert b"".join(pieces) == whole.image
