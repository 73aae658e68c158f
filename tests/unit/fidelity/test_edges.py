from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve

from serve_app.fidelity.edges import EdgeAgreement, Steps, seam_energy

PREWITT = np.array([[1, 0, -1]] * 3) / 3


def gmsd(one, other):
    """As the paper and piq have it, in plain whole-picture code."""
    pad = max(one.shape[0] % 2, one.shape[1] % 2)
    gradients = []
    for plane in (one, other):
        plane = np.pad(plane.astype(float), ((0, pad), (0, pad)))
        height, width = (side // 2 * 2 for side in plane.shape)
        plane = plane[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
        both = [convolve(plane, kernel, mode="constant") for kernel in (PREWITT, PREWITT.T)]
        gradients.append(np.hypot(*both))
    first, second = gradients
    stable = 170 / 255**2
    return ((2 * first * second + stable) / (first**2 + second**2 + stable)).std()


@pytest.mark.parametrize("size", [(40, 50), (41, 50), (40, 51), (33, 27), (2, 2), (1, 9)])
@pytest.mark.parametrize("band", [1, 7, 16, 100])
def test_gmsd_in_bands_is_that_of_the_whole(size, band):
    one, other = np.random.default_rng(0).random((2, *size), dtype=np.float32)
    found = EdgeAgreement(*size)
    for top in range(0, size[0], band):
        found.add(one[top : top + band], other[top : top + band])
    assert found.value() == pytest.approx(gmsd(one, other), abs=1e-6)


def test_equal_edges_agree():
    one = np.random.default_rng(1).random((20, 20), dtype=np.float32)
    found = EdgeAgreement(20, 20)
    found.add(one, one)
    assert found.value() == 0


@pytest.mark.parametrize("size", [(40, 50), (41, 51), (1, 9)])
def test_places_count_by_their_weight(size):
    one, other, weight = np.random.default_rng(2).random((3, *size), dtype=np.float32)
    plain, even, weighed = (EdgeAgreement(*size, weighed=bool(n)) for n in range(3))
    plain.add(one, other)
    for top in range(0, size[0], 7):
        rows = slice(top, top + 7)
        weighed.add(one[rows], other[rows], weight[rows])
    even.add(one, other, np.ones(size, np.float32))
    if not any(side % 2 for side in size):  # a border that is filled up counts by what is there
        assert even.value() == pytest.approx(plain.value(), abs=1e-6)
    assert weighed.value() != pytest.approx(plain.value(), abs=1e-6)


def test_edges_of_no_weight_do_not_count():
    one = np.random.default_rng(3).random((32, 32), dtype=np.float32)
    other, weight = one.copy(), np.ones((32, 32), np.float32)
    other[:, :12], weight[:, :16] = 0, 0
    found = EdgeAgreement(32, 32, weighed=True)
    found.add(one, other, weight)
    assert found.value() == pytest.approx(0, abs=1e-6)


def energy(result, source, rows=(), columns=()):
    steps = []
    for plane in (result, source):
        found = Steps(*plane.shape)
        for top in range(0, len(plane), 13):
            found.add(plane[top : top + 13])
        steps.append(found)
    return seam_energy(*steps, rows, columns)


def ramp(height=60, width=80):
    return np.add.outer(np.linspace(0.2, 0.5, height), np.linspace(0, 0.3, width)).astype(
        np.float32
    )


def test_a_picture_against_itself_shows_no_seam():
    noise = np.random.default_rng(2).random((60, 80), dtype=np.float32)
    assert energy(noise, noise, [20, 40], [30]) == pytest.approx(1)


def test_a_step_at_a_border_shows_and_the_larger_the_more():
    numbers = []
    for step in (0, 2, 4, 8):
        stepped = ramp()
        stepped[30:] += np.float32(step / 255)
        numbers.append(energy(stepped, ramp(), [30]))
        assert energy(stepped, ramp(), [15]) == pytest.approx(1, abs=1e-3)  # not where it is
    assert numbers[0] == pytest.approx(1)
    assert numbers == sorted(numbers)
    assert numbers[1] > 1.3
    turned = ramp(80, 60).T.copy()
    turned[:, 30:] += np.float32(8 / 255)
    assert energy(turned, ramp(80, 60).T, (), [30]) > 1.3


def test_an_edge_of_the_picture_at_a_border_is_no_seam():
    edge = ramp()
    edge[30:] += np.float32(0.3)
    assert energy(edge, edge, [30]) == pytest.approx(1)


@pytest.mark.parametrize("rows", [(), (0,), (60,)])
def test_no_border_inside_is_no_seam(rows):
    assert energy(ramp(), ramp(), rows) == 1
