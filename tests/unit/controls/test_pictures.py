"""Each kind of control reads the picture that its description says."""

from __future__ import annotations

import numpy as np
import pytest

from serve_app.contracts import ControlInfo
from serve_app.controls.canny import canny
from serve_app.controls.pictures import draw
from serve_app.errors import ConfigurationError
from serve_app.levels import Levels
from serve_app.testing import photo_like

SOURCE: Levels = photo_like(10, 12).astype(np.uint16) * 257
ENLARGED: Levels = photo_like(20, 24).astype(np.uint16) * 257


def depth(colour: Levels) -> Levels:
    return colour[:5, :5, :1] // 2


def test_source_is_the_enlarged_source_itself():
    assert draw(ControlInfo(picture="source"), SOURCE, ENLARGED, None, None) is ENLARGED


def test_canny_is_drawn_on_the_enlarged_source():
    edges = draw(ControlInfo(picture="canny"), SOURCE, ENLARGED, None, None)
    assert np.array_equal(edges, canny(ENLARGED, 2))


def test_depth_is_made_from_the_source_and_stretched():
    found = draw(ControlInfo(picture="depth"), SOURCE, ENLARGED, None, depth)
    assert found.shape == (20, 24, 1)
    corners = found[[0, 0, -1, -1], [0, -1, 0, -1], 0].astype(int)
    small = depth(SOURCE)[[0, 0, -1, -1], [0, -1, 0, -1], 0].astype(int)
    assert np.abs(corners - small).max() < 0.05 * 65535


def test_a_given_picture_of_the_right_size_is_taken_bit_for_bit():
    assert np.array_equal(
        draw(ControlInfo(picture="given"), SOURCE, ENLARGED, ENLARGED, None), ENLARGED
    )


def test_a_given_picture_of_another_shape_is_stretched():
    tall = np.zeros((40, 3, 3), np.uint16)
    tall[20:] = 65535
    found = draw(ControlInfo(picture="given"), SOURCE, ENLARGED, tall, None)
    assert found.shape == (20, 24, 3)
    assert (found[:8] == 0).all()
    assert (found[-8:] == 65535).all()


@pytest.mark.parametrize("kind", ["depth", "given"])
def test_a_picture_that_nobody_makes_is_no_silent_black(kind: str):
    with pytest.raises(ConfigurationError, match=kind):
        draw(ControlInfo(picture=kind), SOURCE, ENLARGED, None, None)
