from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from serve_app.fidelity.color_error import ciede2000, to_lab

SHARMA = [  # a part of the table that the paper publishes for checking: L, a, b of both, and the difference
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.4900, -0.0010), (50, -2.4900, 0.0009), 7.1792),
    ((50, 2.4900, -0.0010), (50, -2.4900, 0.0011), 7.2195),
    ((50, -0.0010, 2.4900), (50, 0.0011, -2.4900), 4.7461),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (56, -27, -3), 31.9030),
    ((50, 2.5, 0), (50, 3.2592, 0.3350), 1.0000),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("one", "other", "difference"), SHARMA)
def test_the_published_table(one, other, difference):
    for pair in ((one, other), (other, one)):
        assert ciede2000(*map(np.array, pair)) == pytest.approx(difference, abs=1e-4)


def test_it_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    one, other = rng.uniform((0, -100, -100), (100, 100, 100), (2, 5000, 3))
    np.testing.assert_allclose(ciede2000(one, other), deltaE_ciede2000(one, other), atol=1e-9)


def test_lab_is_that_of_scikit_image():
    pixels = np.random.default_rng(1).random((40, 40, 3), dtype=np.float32)
    np.testing.assert_allclose(to_lab(pixels), rgb2lab(pixels), atol=0.02)
    gray = np.full((1, 1, 3), 0.3, np.float32)
    np.testing.assert_allclose(to_lab(gray)[0, 0, 1:], 0, atol=1e-3)


def test_equal_colours_do_not_differ():
    pixels = np.linspace(0, 1, 30, dtype=np.float32).reshape(10, 3)
    assert ciede2000(to_lab(pixels), to_lab(pixels)).max() == 0
