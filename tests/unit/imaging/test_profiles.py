from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.imaging import profiles
from serve_app.imaging.profiles import Conversion
from tests.unit.imaging.results import gray_profile, p3, srgb

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
    found = Conversion(p3(), gray=False)(COLOURS)
    assert found.dtype == np.uint16
    assert np.abs(found - to_display_p3(COLOURS)).max() < 3 * 257
    assert np.abs(found - to_display_p3(COLOURS)).mean() < 60


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 29))
def test_rows_do_not_ask_for_their_neighbours(cut):
    convert = Conversion(p3(), gray=False)
    parts = [convert(COLOURS[:cut]), convert(COLOURS[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), convert(COLOURS))


def test_srgb_by_another_name_changes_no_bit():
    np.testing.assert_array_equal(Conversion(srgb(), gray=False)(COLOURS), COLOURS)


def test_a_gray_profile_gives_one_channel():
    assert Conversion(gray_profile(1.0), gray=True)(COLOURS).shape == (30, 20, 1)


@pytest.mark.parametrize(
    ("icc", "gray"),
    [
        (b"", False),
        (b"nonsense" * 40, False),
        (p3()[:300], False),
        (p3(), True),
        (gray_profile(2.2), False),
    ],
    ids=["empty", "nonsense", "cut", "colour for gray", "gray for colour"],
)
def test_what_cannot_be_written_to_is_refused(icc, gray):
    with pytest.raises(ValueError, match="profile"):
        Conversion(icc, gray=gray)


def test_a_profile_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(profiles, "MOST_PROFILE_BYTES", 100)
    with pytest.raises(ValueError, match="too large"):
        Conversion(p3(), gray=False)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (12, b"link"),
        (16, b"CMYK"),
        (20, b"RGB "),
        (36, b"none"),
        (128, b"\xff" * 4),
        (136, b"\xff" * 4),
    ],
    ids=["class", "space", "connection", "signature", "count", "offset"],
)
def test_a_profile_is_judged_before_a_library_sees_it(place, value, monkeypatch):
    icc = bytearray(p3())
    icc[place : place + 4] = value
    monkeypatch.setattr(Conversion, "_through", None)
    with pytest.raises(ValueError, match="profile"):
        Conversion(bytes(icc), gray=False)
