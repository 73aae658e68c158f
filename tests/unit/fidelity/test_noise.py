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


def test_blocks_are_found_and_more_the_lower_the_quality():
    found = []
    for quality in (95, 70, 50, 30):
        with Image.open(io.BytesIO(jpeg_bytes(scene(), quality))) as image:
            found.append(judge_source(levels(image.convert("RGB"))).blocking)
    assert found == sorted(found)
    assert found[0] < 0.3 < found[2]


def test_more_of_a_fault_lowers_more():
    by_noise = [lowered(0.8, SourceFaults(sigma / 255, 0)) for sigma in (0, 1, 2, 4, 10, 30)]
    by_blocks = [lowered(0.8, SourceFaults(0, blocking)) for blocking in (0, 0.1, 0.3, 1)]
    for numbers in (by_noise, by_blocks):
        assert numbers[0] == 0.8
        assert numbers == sorted(numbers, reverse=True)
        assert min(numbers) > 0
    assert by_noise[3] == pytest.approx(0.4)
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
