"""Draws the picture that one control reads, as the model's description says how.

It refuses to know files, tiles and torch: what estimates depth is handed in (`depth`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from serve_app.contracts import ControlInfo
from serve_app.controls.canny import canny
from serve_app.errors import ConfigurationError
from serve_app.levels import Levels, from_levels, to_levels
from serve_app.resample import resize
from serve_app.tiling.geometry import Size

DepthEstimator = Callable[[Levels], Levels]
"""From colours (height, width, 3) to nearness (any height, any width, 1), brightest where nearest."""


def draw(
    control: ControlInfo,
    source: Levels,
    enlarged: Levels,
    given: Levels | None,
    depth: DepthEstimator | None,
) -> Levels:
    """Draws one control's picture at the result's size.

    Args:
        control: Says which picture it reads.
        source: The source, (h, w, 3); depth is estimated from it.
        enlarged: The source at the result's size, (height, width, 3).
        given: The caller's picture, (any, any, 3), for a control that reads one; stretched to the result.
        depth: Estimates depth, where the model offers it.

    Returns:
        (height, width, 3), or (height, width, 1) where all channels are equal.

    Raises:
        ConfigurationError: a picture is needed that nobody makes here.
    """
    size = Size(*enlarged.shape[:2])
    if control.picture == "source":
        return enlarged
    if control.picture == "canny":
        return canny(enlarged, math.sqrt(size.pixels / Size(*source.shape[:2]).pixels))
    if control.picture == "depth" and depth is not None:
        return _stretch(depth(source), size)
    if control.picture == "given" and given is not None:
        return _stretch(given, size)
    raise ConfigurationError(f"no picture of the kind {control.picture!r} is at hand")


def _stretch(picture: Levels, size: Size) -> Levels:
    if picture.shape[:2] == (size.height, size.width):
        return picture
    return to_levels(resize(from_levels(picture), size.height, size.width))
