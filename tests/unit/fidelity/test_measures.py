from __future__ import annotations

import numpy as np
import pytest

from serve_app.fidelity.measures import BEST_PSNR_DB, lr_psnr
from serve_app.resample import resize


def source(height=24, width=31):
    return np.random.default_rng(4).random((height, width, 3), dtype=np.float32)


def test_a_known_error_gives_a_known_number():
    flat = np.full((8, 8, 3), 0.5, np.float32)
    assert lr_psnr(np.full((32, 32, 3), 0.6, np.float32), flat) == pytest.approx(20, abs=1e-3)
    assert lr_psnr(np.full((32, 32, 3), 0.51, np.float32), flat) == pytest.approx(40, abs=1e-3)


def test_equal_pictures_get_the_best_number():
    assert lr_psnr(source(), source()) == BEST_PSNR_DB == 120
    large = np.random.default_rng(0).random((96, 124, 3), dtype=np.float32)
    assert lr_psnr(large, resize(large, 24, 31)) == BEST_PSNR_DB


def test_more_noise_is_a_lower_number():
    small = source()
    large = resize(small, 96, 124)
    noise = np.random.default_rng(1).normal(0, 1, large.shape).astype(np.float32)
    numbers = [lr_psnr(large + level * noise, small) for level in (0.0, 0.2, 0.4, 0.8)]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == 4


def test_gray_is_taken_too():
    assert lr_psnr(np.ones((4, 4), np.float32), np.zeros((2, 2), np.float32)) == pytest.approx(0)


def test_channels_that_differ_are_refused():
    with pytest.raises(ValueError, match="channels"):
        lr_psnr(np.zeros((4, 4, 3), np.float32), np.zeros((2, 2), np.float32))
