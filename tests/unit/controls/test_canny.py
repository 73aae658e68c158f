"""Edges are drawn where the picture is steep, one pixel wide, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from serve_app.controls.canny import HIGH_THRESHOLD, LOW_THRESHOLD, canny
from serve_app.levels import from_levels, to_levels
from serve_app.resample import resize
from serve_app.testing import photo_like

ORIGINALS = Path(__file__).parents[2] / "acceptance/originals"


def test_a_step_becomes_one_line_of_one_pixel():
    picture = np.zeros((16, 20, 3), np.uint16)
    picture[:, 10:] = 65535
    edges = canny(picture, 1)
    assert (edges.shape, edges.dtype) == ((16, 20, 1), np.uint16)
    assert set(np.unique(edges)) == {0, 65535}
    lines = edges[2:-2, :, 0] > 0
    assert (lines.sum(axis=1) == 1).all()
    assert set(np.argmax(lines, axis=1)) <= {9, 10}


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_step_in_any_channel_is_seen(channel: int):
    picture = np.zeros((16, 16, 3), np.uint16)
    picture[:, 8:, channel] = 65535
    assert canny(picture, 1).any()


def test_a_gentle_slope_has_no_edge():
    slope = np.linspace(0, 65535, 64, dtype=np.uint16)
    picture = np.broadcast_to(slope[None, :, None], (64, 64, 3))
    assert not canny(picture, 1).any()


def test_an_8_bit_picture_is_judged_by_its_very_values():
    picture = photo_like(64, 64)
    expected = cv2.Canny(picture, LOW_THRESHOLD, HIGH_THRESHOLD)
    assert expected.any()
    edges = canny(picture.astype(np.uint16) * 257, 1)
    assert np.array_equal(edges[:, :, 0] // 257, expected)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_an_enlarged_photograph_has_the_lines_of_its_sharp_original(name: str, scale: int):
    """As many, near enough, and in the same places: what such a ControlNet was trained on."""
    with Image.open(ORIGINALS / f"{name}.webp") as file:
        sharp = np.asarray(file.convert("RGB"), np.float32) / 255
    height, width = sharp.shape[:2]
    small = to_levels(resize(sharp, height // scale, width // scale))
    enlarged = to_levels(resize(from_levels(small), height, width))
    wanted, found = (
        canny(picture, by)[:, :, 0] > 0
        for picture, by in ((to_levels(sharp), 1), (enlarged, scale))
    )
    reach = np.ones((2 * scale + 1, 2 * scale + 1), np.uint8)
    assert (wanted & (cv2.dilate(found.astype(np.uint8), reach) > 0)).sum() > 0.95 * wanted.sum()
    assert (found & (cv2.dilate(wanted.astype(np.uint8), reach) > 0)).sum() > 0.8 * found.sum()
    assert 0.5 < found.sum() / wanted.sum() < 1.3
