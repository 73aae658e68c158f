"""Strategies for plans: any size, tile, overlap and grid that fit each other."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from serve_app.levels import Levels
from serve_app.tiling.geometry import Size
from serve_app.tiling.grid import Plan, make_plan, mirrored


@st.composite
def plans(draw: st.DrawFn, most_px: int = 12000) -> tuple[Plan, int]:
    """A plan and its grid. Long sides get tiles in proportion, so that tiles stay countable."""
    height, width = draw(st.integers(1, most_px)), draw(st.integers(1, most_px))
    align_px = draw(st.sampled_from([1, 2, 8, 16]))
    least = max(1, max(height, width) // (40 * align_px))
    tile = draw(st.integers(least, least + 12))
    overlap = draw(st.integers(0, tile // 3))
    return make_plan(Size(height, width), tile * align_px, overlap * align_px, align_px), align_px


def pad_to_canvas(picture: Levels, plan: Plan) -> Levels:
    """Extends a picture of the result's size to the whole canvas."""
    rows = mirrored(plan.result.height, plan.canvas.height)
    return picture[np.ix_(rows, mirrored(plan.result.width, plan.canvas.width))]
