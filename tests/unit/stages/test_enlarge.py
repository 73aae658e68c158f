"""Rows of an enlarged source are, bit for bit, the rows of the whole enlarged."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.imaging.alpha import resize_with_alpha
from serve_app.imaging.traits import Traits
from serve_app.levels import from_levels, to_levels
from serve_app.resample import resize
from serve_app.stages.enlarge import Source, alpha_rows, enlarged_rows
from serve_app.tiling.geometry import Size


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 40),
    scale=st.floats(1, 8),
    has_alpha=st.booleans(),
    cut=st.tuples(st.floats(0, 0.99), st.floats(0, 1)),
    seed=st.integers(0, 99),
)
def test_rows_are_those_of_the_whole(
    height: int, width: int, scale: float, has_alpha: bool, cut: tuple[float, float], seed: int
):
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 65536, (height, width, 3), dtype=np.uint16)
    alpha = rng.integers(1, 65536, (height, width), dtype=np.uint16) if has_alpha else None
    size = Size(round(height * scale), round(width * scale))
    top = int(cut[0] * size.height)
    bottom = top + 1 + int(cut[1] * (size.height - top - 1))
    pixels = from_levels(colour)
    if alpha is None:
        whole = resize(pixels, size.height, size.width)
    else:
        whole, soft = resize_with_alpha(pixels, from_levels(alpha), size.height, size.width)
        assert np.array_equal(alpha_rows(alpha, size, top, bottom), soft[top:bottom])
    rows = enlarged_rows(Source(colour, alpha, Traits()), size, top, bottom)
    assert np.array_equal(rows, to_levels(whole)[top:bottom])
