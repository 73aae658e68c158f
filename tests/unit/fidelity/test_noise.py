from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from serve_app.fidelity.noise import SourceFaults, judge_source, lowered
from serve_app.levels import to_levels
from serve_app.resample import resize
from serve_app.testing import jpeg_bytes


def scene():
    """Smooth ground with edges: 8-bit, as a clean photograph is."""
    y, x = np.mgrid[0:192, 0:256]
    plane = (
        120
        + 50 * np.sin(x / 37) * np.cos(y / 41)
        + 30 * (((x + y // 2) // 131 + (y - x // 3) // 123) % 2)
    )
    soft = resize(plane.astype(np.float32), 96, 128)
    return np.rint(np.clip(soft[..., None] * (1, 0.9, 0.8), 0, 255)).astype(np.uint8)


def levels(pixels):
    return np.asarray(pixels).astype(np.uint16) * 257


def noisy(sigma, seed=0):
    drawn = np.random.default_rng(seed).normal(0, sigma, (96, 128, 3))
    return to_levels(((scene() + drawn) / 255).astype(np.float32))


@pytest.mark.parametrize("sigma", [2, 5, 10, 20])
def test_known_noise_is_found(sigma):
    assert judge_source(noisy(sigma)).noise * 255 == pytest.approx(sigma, rel=0.25)


def test_a_clean_source_keeps_the_default():
    faults = judge_source(levels(scene()))
    assert faults.noise * 255 < 1
    assert faults.blocking < 0.08
    assert lowered(0.5, faults) == 0.5


def texture(side=128):
    """Sharp and without a quiet place, but as a photograph's falling with the frequency: a lawn."""
    white = np.random.default_rng(1).normal(0, 1, (side, side))
    down, across = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]
    falling = np.fft.fft2(white) / (np.hypot(down, across) + 0.02) ** 1.5
    plane = np.fft.ifft2(falling * np.cos(np.pi * down) * np.cos(np.pi * across)).real
    plane = 128 + 40 * plane / plane.std()
    return np.rint(np.clip(plane[..., None] * (1, 0.95, 0.8), 0, 255)).astype(np.uint8)


def test_texture_is_no_noise():
    faults = judge_source(levels(texture()))
    assert faults.noise * 255 < 1.5
    assert faults.blocking < 0.05
    assert lowered(1, faults) > 0.85


def test_noise_on_texture_is_found():
    drawn = np.random.default_rng(0).normal(0, 5, (128, 128, 3))
    noisy_texture = to_levels(((texture() + drawn) / 255).astype(np.float32))
    assert judge_source(noisy_texture).noise * 255 == pytest.approx(5, rel=1 / 3)


def test_soft_noise_of_a_large_picture_is_seen():
    white = np.random.default_rng(0).normal(0, 10, (401, 401, 1))
    soft = (white[1:, 1:] + white[1:, :-1] + white[:-1, 1:] + white[:-1, :-1]) / 4
    picture = to_levels(((128 + soft) / 255).astype(np.float32).repeat(3, 2))
    assert judge_source(picture).noise * 255 > 2.5
    assert judge_source(picture[:300]).noise * 255 < 2


def test_a_large_picture_is_judged_by_a_sample():
    drawn = np.random.default_rng(0).normal(0, 5 / 255, (1500, 2000, 3))
    assert judge_source(to_levels((0.5 + drawn).astype(np.float32))).noise * 255 == pytest.approx(
        5, rel=0.1
    )


@pytest.mark.parametrize("quality", [90, 85, 70, 50, 30])
def test_blocks_are_found(quality: int):
    for picture in (scene(), texture()):
        with Image.open(io.BytesIO(jpeg_bytes(picture, quality))) as image:
            found = judge_source(levels(image.convert("RGB"))).blocking
        assert found > 0.4


def test_the_best_quality_leaves_few_blocks():
    found = []
    for quality in (99, 95, 85):
        with Image.open(io.BytesIO(jpeg_bytes(texture(), quality))) as image:
            found.append(judge_source(levels(image.convert("RGB"))).blocking)
    assert found == sorted(found)
    assert found[0] < 0.1


def test_more_of_a_fault_lowers_more():
    by_noise = [lowered(0.8, SourceFaults(sigma / 255, 0)) for sigma in (0, 1, 2, 5, 10, 30)]
    by_blocks = [lowered(0.8, SourceFaults(0, blocking)) for blocking in (0, 0.1, 0.4, 0.75)]
    for numbers in (by_noise, by_blocks):
        assert numbers[0] == numbers[1] == 0.8
        assert numbers == sorted(numbers, reverse=True)
        assert min(numbers) > 0
    assert by_noise[2] == pytest.approx(0.8 * 2 / 3, rel=0.05)
    assert by_noise[3] == pytest.approx(0.8 / 16, rel=0.2)
    assert by_noise[4] < 0.01
    assert by_blocks[2] == pytest.approx(0.4)
    assert by_blocks[3] == pytest.approx(0.8 / 6, rel=0.1)
    assert lowered(0, SourceFaults(0.1, 1)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (15, 15), (16, 16), (40, 17), (70, 130)])
def test_any_size_is_judged(shape):
    faults = judge_source(np.full((*shape, 3), 30000, np.uint16))
    assert faults == SourceFaults(0.0, 0.0)


def test_clipped_places_say_nothing_of_noise():
    white = np.full((64, 64, 3), 65535, np.uint16)
    assert judge_source(white).noise == 0


@pytest.mark.parametrize("ground", [255, 250, 0])
def test_a_clean_page_of_strokes_is_not_noisy(ground: int):
    page = np.full((600, 800, 3), ground, np.uint16)
    strokes = np.random.default_rng(3).random((600, 800)) < 0.06
    strokes[:, :60] = strokes[:, 740:] = False
    strokes &= (np.arange(600) % 16 < 9)[:, None]
    page[strokes] = 230 if ground < 128 else 0
    faults = judge_source(page * np.uint16(257))
    assert faults.noise < 0.004
    assert lowered(0.5, faults) > 0.4


@pytest.mark.parametrize("pixel_px", [4, 8, 16])
def test_a_drawing_on_the_grid_of_blocks_is_no_jpeg(pixel_px: int):
    drawn = np.random.default_rng(0).integers(0, 256, (256 // pixel_px, 256 // pixel_px, 3))
    picture = drawn.repeat(pixel_px, 0).repeat(pixel_px, 1).astype(np.uint16) * np.uint16(257)
    assert judge_source(picture).blocking < 0.1


@pytest.mark.parametrize("sigma", [0, 5, 10])
def test_what_is_hidden_tells_nothing(sigma):
    source, alpha = noisy(sigma), np.full((96, 128), 65535, np.uint16)
    source[:40], alpha[:40] = 30000, 0  # as smooth as a fill is
    source[:, 100:], alpha[:, 100:] = 30000, 0
    assert judge_source(source, alpha).noise * 255 == pytest.approx(sigma, abs=max(0.25 * sigma, 1))
    assert judge_source(source, np.zeros_like(alpha)) == SourceFaults(0.0, 0.0)


def test_a_picture_that_is_seen_whole_is_judged_as_without_transparency():
    source = noisy(5)
    assert judge_source(source, np.full((96, 128), 65535, np.uint16)) == judge_source(source)
