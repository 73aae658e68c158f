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


def measured(source, result, band=1000, rows=(), columns=()):
    measuring = Measuring(source, *result.shape[:2], rows, columns)
    for top in range(0, len(result), band):
        measuring.add(result[top : top + band], top)
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
