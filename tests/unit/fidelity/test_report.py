from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from serve_app.fidelity.measures import BEST_PSNR_DB, lr_psnr
from serve_app.fidelity.report import Measures, Measuring
from serve_app.levels import from_levels, to_levels
from serve_app.resample import resize
from serve_app.testing import photo_like

SIZES = [((64, 80), (256, 320)), ((63, 81), (170, 219)), ((30, 21), (30, 21)), ((1, 1), (4, 4))]


def pair(small, large, noise=0.05):
    source = to_levels(photo_like(*small).astype(np.float32) / 255)
    drawn = np.random.default_rng(0).normal(0, noise, (*large, 3))
    return source, np.clip(resize(from_levels(source), *large) + drawn, 0, 1).astype(np.float32)


def measured(source, result, band=1000, rows=(), columns=(), alpha=None):
    measuring = Measuring(source, *result.shape[:2], rows, columns, alpha)
    shown = None if alpha is None else resize(from_levels(alpha), *result.shape[:2])
    for top in range(0, len(result), band):
        seen = None if shown is None else shown[top : top + band]
        measuring.add(result[top : top + band], top, seen)
    return measuring.end()


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_the_numbers_are_those_of_the_whole_pictures(small, large):
    source, result = pair(small, large)
    found = measured(source, result)
    shrunk, pixels = resize(result, *small), from_levels(source)
    errors = deltaE_ciede2000(rgb2lab(np.clip(shrunk, 0, 1)), rgb2lab(pixels))
    assert found.lr_psnr_db == pytest.approx(lr_psnr(result, pixels), abs=1e-3)
    assert found.color_error_mean == pytest.approx(errors.mean(), rel=0.01)
    assert found.color_error_p99 == pytest.approx(
        np.quantile(errors, 0.99, method="higher"), abs=0.05
    )


@pytest.mark.parametrize(("small", "large"), SIZES)
@pytest.mark.parametrize("band", [1, 7, 64])
def test_where_bands_are_cut_makes_no_difference(small, large, band):
    source, result = pair(small, large)
    borders = [large[0] // 2], [large[1] // 3]
    whole, found = (
        measured(source, result, 1000, *borders),
        measured(source, result, band, *borders),
    )
    for name in Measures.__slots__:
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-4, abs=1e-6)


def test_a_faithful_result_gets_the_best_numbers():
    large = np.float32(0.2) + photo_like(96, 128).astype(np.float32) / 425
    source = to_levels(resize(large, 24, 32))
    found = measured(source, large)
    assert found.lr_psnr_db > 95  # the source is rounded to 16 bits
    assert found.color_error_p99 < 0.05
    assert found.edge_agreement < 1e-4
    assert found.seam_energy == 1
    assert measured(to_levels(large), from_levels(to_levels(large))).lr_psnr_db == BEST_PSNR_DB


def test_a_step_between_two_tiles_is_seen():
    source, result = pair((64, 64), (256, 256), noise=0)
    stepped = result.copy()
    stepped[:, 128:] = np.clip(stepped[:, 128:] + 0.06, 0, 1)
    assert measured(source, stepped, 50, (), [128]).seam_energy > 1.3
    assert measured(source, result, 50, [128], [128]).seam_energy == pytest.approx(1, abs=0.01)


def test_colours_of_a_large_source_are_compared_on_a_lattice(monkeypatch):
    source, result = pair((64, 80), (256, 320))
    whole = measured(source, result, 33)
    monkeypatch.setattr("serve_app.fidelity.report._MOST_COLORS", 600)
    few = measured(source, result, 33)
    assert few.color_error_mean == pytest.approx(whole.color_error_mean, rel=0.15)
    assert few.color_error_mean != whole.color_error_mean
    assert few.lr_psnr_db == whole.lr_psnr_db


def test_bands_that_do_not_follow_are_refused():
    source, result = pair((16, 16), (64, 64))
    measuring = Measuring(source, 64, 64, (), ())
    with pytest.raises(ValueError, match="do not follow row 0"):
        measuring.add(result[8:], 8)
    measuring.add(result[:32], 0)
    with pytest.raises(ValueError, match="of 16 rows of the source were compared"):
        measuring.end()


# Transparency


def veiled(height=64, width=80):
    """The left half hidden, a soft edge, the rest seen."""
    return to_levels(
        np.clip(np.linspace(-1, 2, width, dtype=np.float32), 0, 1) * np.ones((height, 1))
    )


def test_what_is_hidden_counts_for_nothing():
    source, result = pair((64, 80), (256, 320), noise=0.02)
    alpha = veiled()
    spoilt = result.copy()
    spoilt[:, :80] = np.random.default_rng(1).random((256, 80, 3), dtype=np.float32)
    borders = [128], [40, 200]
    one, other = (measured(source, r, 50, *borders, alpha) for r in (result, spoilt))
    for name in Measures.__slots__:
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=2e-3), name
    assert measured(source, spoilt, 50, *borders).lr_psnr_db < one.lr_psnr_db - 5


def test_an_empty_surrounding_does_not_flatter():
    source, result = pair((64, 80), (256, 320))
    wide_source, wide_result = (
        np.pad(pixels, ((len(pixels),) * 2, (pixels.shape[1],) * 2, (0, 0)), mode="edge")
        for pixels in (source, result)
    )
    alpha = np.zeros((192, 240), np.uint16)
    alpha[64:128, 80:160] = 65535
    wide = measured(wide_source, wide_result, 50, alpha=alpha)
    whole = measured(source, result, 50)
    assert wide.lr_psnr_db == pytest.approx(whole.lr_psnr_db, abs=1)  # else 9 dB more
    assert wide.color_error_mean == pytest.approx(whole.color_error_mean, rel=0.05)
    assert wide.color_error_p99 == pytest.approx(whole.color_error_p99, rel=0.1)
    assert wide.edge_agreement == pytest.approx(whole.edge_agreement, rel=0.1)


@pytest.mark.parametrize("level", [1, 32768, 65535])
def test_one_transparency_all_over_changes_no_number(level):
    source, result = pair((64, 80), (256, 320))
    alpha = np.full((64, 80), level, np.uint16)
    veil, whole = measured(source, result, 50, alpha=alpha), measured(source, result, 50)
    assert veil.lr_psnr_db == pytest.approx(whole.lr_psnr_db, abs=1e-3)
    assert veil.color_error_mean == pytest.approx(whole.color_error_mean, rel=1e-3)
    assert veil.color_error_p99 == pytest.approx(whole.color_error_p99, abs=0.02)


def test_where_nothing_is_seen_all_counts_alike():
    source, result = pair((16, 16), (64, 64))
    hidden = measured(source, result, 50, [32], [32], np.zeros((16, 16), np.uint16))
    assert hidden == measured(source, result, 50, [32], [32])
