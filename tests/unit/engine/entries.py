"""Tasks, entries and crops for tests of the engine."""

from __future__ import annotations

import numpy as np

from serve_app.contracts import UpscaleParams, resolve
from serve_app.engine.task import Entry, TileTask
from serve_app.testing import FAKE_MODEL
from serve_app.tiling.geometry import Tile
from serve_app.tiling.levels import Levels

SIDE_PX = 8


def task(index: int = 0, steps: int = 2, side_px: int = SIDE_PX) -> TileTask:
    params = resolve(UpscaleParams(steps=steps), FAKE_MODEL, drawn_seed=0)
    return TileTask("request", index, Tile(0, 0, side_px, side_px), params)


def entry(number: int, steps: int = 2, side_px: int = SIDE_PX) -> Entry:
    return Entry(number, task(number, max(steps, 1), side_px), steps)


def crop(index: int) -> Levels:
    """A crop that tells its tile's index."""
    return np.full((SIDE_PX, SIDE_PX, 3), index, np.uint16)
