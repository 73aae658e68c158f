"""Denoising takes noise and blocking out, keeps edges and 16 bits, and does not depend on how it is cut."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from serve_app.fidelity import denoise as module
from serve_app.fidelity.denoise import denoise, noise_of
from serve_app.levels import Levels, Pixels, from_levels, to_levels


def scene(height: int = 96, width: int = 120) -> Pixels:
    """A slope of colour, a bright disc and a dark bar."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    picture = np.stack([0.3 + 0.3 * x / width, 0.4 + 0.2 * y / height, np.full_like(x, 0.45)], -1)
    picture[(y - 40) ** 2 + (x - 50) ** 2 < 400] = (0.9, 0.8, 0.6)
    picture[10:80, 90:96] = 0.1
    return picture


def noisy(picture: Pixels, sigma: float) -> Levels:
    noise = np.random.default_rng(3).normal(0, sigma / 255, picture.shape)
    return to_levels(np.asarray(picture + noise, np.float32))


def psnr(found: Levels, truth: Pixels) -> float:
    return -10 * float(np.log10(np.mean((from_levels(found) - truth) ** 2)))


def test_amount_0_is_the_identity():
    source = noisy(scene(), 10)
    assert np.array_equal(denoise(source, 0), source)


@pytest.mark.parametrize(("sigma", "gain_db"), [(5, 6), (10, 7), (20, 7)])
def test_noise_goes(sigma: float, gain_db: float):
    source = noisy(scene(), sigma)
    before = source.copy()
    assert psnr(denoise(source, 1), scene()) > psnr(source, scene()) + gain_db
    assert np.array_equal(source, before)


def test_more_takes_out_more():
    source = noisy(scene(), 10)
    found = [psnr(denoise(source, amount), scene()) for amount in (0, 0.3, 0.6, 1)]
    assert found == sorted(found)


def test_blocking_goes():
    buffer = io.BytesIO()
    Image.fromarray(np.round(scene() * 255).astype(np.uint8)).save(buffer, "jpeg", quality=50)
    source = np.asarray(Image.open(buffer)).astype(np.uint16) * 257
    assert psnr(denoise(source, 1), scene()) > psnr(source, scene()) + 0.6


def test_an_edge_stays_as_steep():
    source = to_levels(scene())
    across = np.abs(np.diff(from_levels(source)[45, :, 1])).max()
    assert np.abs(np.diff(from_levels(denoise(source, 1))[45, :, 1])).max() > 0.97 * across


def test_sixteen_bits_stay():
    slope = np.broadcast_to(np.arange(30000, 30256, dtype=np.uint16)[None, :, None], (64, 256, 3))
    found = denoise(np.ascontiguousarray(slope), 1)
    assert np.abs(found.astype(np.int64) - slope).max() < 64  # a level of 8 bits is 257
    assert len(np.unique(found[32])) > 100


def test_bands_leave_no_trace(monkeypatch: pytest.MonkeyPatch):
    source = noisy(scene(83, 61), 8)
    whole = denoise(source, 0.7).astype(np.int64)
    monkeypatch.setattr(module, "_BAND_ROWS", 16)
    assert (
        np.abs(denoise(source, 0.7) - whole).max() <= 1
    )  # products of other sizes round otherwise


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 9), (8, 8), (300, 3)])
def test_any_size(shape: tuple[int, int]):
    source = np.full((*shape, 3), 40000, np.uint16)
    assert np.abs(denoise(source, 1).astype(np.int64) - 40000).max() <= 1


@pytest.mark.parametrize("sigma", [2, 5, 10])
def test_noise_is_estimated(sigma: float):
    assert noise_of(noisy(scene(), sigma)) * 255 == pytest.approx(sigma, rel=0.25)


@pytest.mark.parametrize("sigma", [2, 5, 10])
def test_noise_is_looked_for_in_what_is_seen(sigma: float):
    source = noisy(scene(), sigma)
    alpha = np.full(source.shape[:2], 65535, np.uint16)
    half = source.shape[1] // 2
    smooth = np.linspace(20000, 30000, half)[None, :, None]  # a fill: smooth, and not even
    source[:, :half], alpha[:, :half] = smooth, 0
    assert noise_of(source, alpha) * 255 == pytest.approx(sigma, rel=0.25)
    assert noise_of(source, np.zeros_like(alpha)) == 0


def test_a_drawn_picture_has_no_noise():
    assert noise_of(np.full((64, 64, 3), 1000, np.uint16)) == 0


@pytest.mark.parametrize("amount", [-0.1, 1.1, float("nan")])
def test_an_amount_outside_is_refused(amount: float):
    with pytest.raises(ValueError, match="amount"):
        denoise(to_levels(scene()), amount)


def test_three_channels_are_needed():
    with pytest.raises(ValueError, match="three channels"):
        denoise(np.zeros((8, 8), np.uint16), 1)
