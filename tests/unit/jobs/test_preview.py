"""A preview shows the tiles that are there, where they belong."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from serve_app.jobs.preview import SIDE_PX, Preview
from serve_app.levels import Levels
from serve_app.tiling.geometry import Size, Tile


def shown(preview: Preview) -> np.ndarray:
    with Image.open(io.BytesIO(preview.jpeg())) as picture:
        assert picture.format == "JPEG"
        return np.asarray(picture.convert("RGB")).astype(int)


def plain(height: int, width: int, level: int) -> Levels:
    return np.full((height, width, 3), level, np.uint16)


def test_it_begins_dark_and_its_longer_side_is_bounded():
    empty = shown(Preview(Size(4000, 2000)))
    assert empty.shape == (SIDE_PX, SIDE_PX // 2, 3)
    assert empty.max() < 40


def test_a_tile_is_drawn_where_it_lies():
    preview = Preview(Size(1280, 1280))
    preview.add(Tile(640, 0, 640, 640), plain(640, 640, 65535))
    canvas = shown(preview)
    assert canvas[170:310, 10:150].min() > 245
    assert canvas[:150].max() < 50
    assert canvas[:, 175:].max() < 50


def test_what_lies_beyond_the_edge_is_cut_off():
    preview = Preview(Size(100, 100))
    preview.add(Tile(64, 64, 256, 256), plain(256, 256, 65535))
    canvas = shown(preview)
    assert canvas.shape == (100, 100, 3)
    assert canvas[75:, 75:].min() > 240
    assert canvas[:50, :50].max() < 50


@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 5000), Size(30000, 30000)])
def test_every_size_has_a_preview(size: Size):
    preview = Preview(size)
    preview.add(Tile(0, 0, 256, 256), plain(256, 256, 30000))
    assert max(shown(preview).shape) <= SIDE_PX


def test_threads_may_draw_side_by_side():
    preview = Preview(Size(1024, 1024))
    tiles = [
        Tile(top, left, 256, 256) for top in range(0, 1024, 256) for left in range(0, 1024, 256)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda tile: preview.add(tile, plain(256, 256, 65535)), tiles))
    assert shown(preview).min() > 245
