from __future__ import annotations

import numpy as np
import pytest

from serve_app.fidelity.held import HeldRows


def held(*lengths: int) -> HeldRows:
    rows, found = np.arange(sum(lengths) * 6, dtype=np.float32).reshape(-1, 2, 3), HeldRows()
    for top, length in zip(np.cumsum([0, *lengths]), lengths, strict=False):
        found.add(rows[top : top + length])
    return found


def test_rows_are_found_by_their_number_across_bands():
    found = held(5, 1, 7)
    assert found.end == 13
    whole = np.arange(13 * 6, dtype=np.float32).reshape(-1, 2, 3)
    for top in range(13):
        for bottom in range(top + 1, 14):
            np.testing.assert_array_equal(found.rows(top, bottom), whole[top:bottom])


def test_rows_of_one_band_are_not_copied():
    band = np.zeros((8, 4, 3), np.float32)
    found = HeldRows()
    found.add(band)
    assert np.shares_memory(found.rows(2, 5), band)


def test_bands_above_a_row_are_let_go_of():
    found = held(5, 1, 7)
    found.drop(6)
    assert len(found.rows(6, 13)) == 7
    with pytest.raises(ValueError, match="rows 5 to 7 are not held"):
        found.rows(5, 7)
    found.drop(12)  # within a band: it stays whole
    assert len(found.rows(6, 13)) == 7


def test_rows_that_have_not_come_are_refused():
    with pytest.raises(ValueError, match="rows 3 to 9 are not held"):
        held(8).rows(3, 9)
