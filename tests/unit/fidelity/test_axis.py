from __future__ import annotations

import numpy as np
import pytest

from serve_app.fidelity.axis import AxisFilter

REACH = 3


def smooth(lines):
    """Reaches 3 px, and does something of its own at the edges."""
    for _ in range(REACH):
        padded = np.pad(lines, ((1, 1), (0, 0)), mode="edge")
        lines = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / np.float32(4)
    return lines


@pytest.mark.parametrize("length", [1, 2, 7, 16, 17, 50])
def test_it_does_what_it_was_made_from(length):
    lines = np.random.default_rng(0).random((length, 5), dtype=np.float32)
    found = AxisFilter(smooth, length, REACH).rows(lines, 0, 0, length)
    np.testing.assert_allclose(found, smooth(lines), atol=1e-6)


@pytest.mark.parametrize(("top", "bottom"), [(0, 9), (5, 6), (14, 33), (30, 50)])
def test_some_rows_need_only_their_neighbours(top, bottom):
    lines = np.random.default_rng(1).random((50, 4, 3), dtype=np.float32)
    found = AxisFilter(smooth, 50, REACH)
    first, end = max(top - found.reach, 0), min(bottom + found.reach, 50)
    part = found.rows(lines[first:end], first, top, bottom)
    np.testing.assert_allclose(part, found.rows(lines, 0, 0, 50)[top:bottom], atol=1e-6)


def test_columns_are_filtered_likewise():
    lines = np.random.default_rng(2).random((6, 40, 3), dtype=np.float32)
    found = AxisFilter(smooth, 40, REACH)
    turned = found.rows(lines.swapaxes(0, 1), 0, 0, 40).swapaxes(0, 1)
    np.testing.assert_array_equal(found.columns(lines), turned)
