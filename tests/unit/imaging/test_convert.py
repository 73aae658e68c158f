"""The conversion itself, as the child has it; how it is asked for is in test_profiles."""

from __future__ import annotations

import numpy as np
import pytest

from serve_app.imaging.convert import to_profile
from tests.unit.imaging.results import gray_profile, p3

COLOURS = np.random.default_rng(1).integers(0, 65536, (30, 20, 3)).astype(np.uint16)


def to_display_p3(levels: np.ndarray) -> np.ndarray:
    """By the definition: the same curve, other primaries. Source: SMPTE EG 432-1; IEC 61966-2-1."""
    x = levels / 65535
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    turned = np.array([[0.8225, 0.1774, 0], [0.0332, 0.9669, 0], [0.0171, 0.0724, 0.9108]])
    p3_light = np.clip(light @ turned.T, 0, 1)
    curved = np.where(
        p3_light <= 0.0031308, 12.92 * p3_light, 1.055 * p3_light ** (1 / 2.4) - 0.055
    )
    return curved * 65535


def test_display_p3_is_what_its_definition_says():
    found = to_profile(COLOURS, p3(), 3)
    assert found.dtype == np.uint16
    assert np.abs(found - to_display_p3(COLOURS)).max() < 3 * 257
    assert np.abs(found - to_display_p3(COLOURS)).mean() < 60


def test_the_shape_of_rows_changes_nothing():
    """So that a picture's rows may come as pieces of any length."""
    flat = to_profile(COLOURS.reshape(1, -1, 3), p3(), 3)
    np.testing.assert_array_equal(flat.reshape(30, 20, 3), to_profile(COLOURS, p3(), 3))


def test_a_gray_profile_gives_one_channel():
    assert to_profile(COLOURS, gray_profile(1.0), 1).shape == (30, 20, 1)


@pytest.mark.parametrize(
    ("icc", "channels"),
    [(b"", 3), (b"nonsense" * 40, 3), (p3()[:300], 3), (p3(), 1), (gray_profile(2.2), 3)],
    ids=["empty", "nonsense", "cut", "colour for gray", "gray for colour"],
)
def test_what_cannot_be_written_to_is_a_value_error(icc, channels):
    with pytest.raises(ValueError, match="profile"):
        to_profile(COLOURS, icc, channels)
