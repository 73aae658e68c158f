"""The two CPU stages: bytes to tile crops, and tiles to bytes. No torch, so their processes stay small.

What travels between the stages are levels (16 bit), never floats: see `tiling.levels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.contracts import ModelInfo, ResolvedParams
from serve_app.errors import TooLarge
from serve_app.fidelity.backprojection import backproject
from serve_app.imaging.alpha import resize_with_alpha
from serve_app.imaging.codec import decode, encode
from serve_app.imaging.inspect import inspect
from serve_app.resample import resize
from serve_app.settings import ImageLimits
from serve_app.tiling.blend import blend
from serve_app.tiling.geometry import Size, result_size
from serve_app.tiling.grid import Plan, make_plan, pad_to_canvas
from serve_app.tiling.levels import Levels, from_levels, to_levels


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of a picture once its header is read: small, travels by value."""

    source: Size
    plan: Plan


@dataclass(frozen=True, slots=True)
class Source:
    """A decoded source, kept until the end: the result is tied to it.

    Attributes:
        colour: (height, width, 3); transparent places filled from their neighbours.
        alpha: (height, width), or None for an opaque picture.
    """

    colour: Levels
    alpha: Levels | None


def outline(image: bytes, params: ResolvedParams, model: ModelInfo, limits: ImageLimits) -> Outline:
    """Reads a picture's header and plans its tiles. Decodes nothing.

    Args:
        image: The encoded file.
        params: Says how large the result is.
        model: Says how large a tile is.
        limits: On the upload, the source and the result.

    Raises:
        RequestError: not a picture that Tessera reads, or over a limit.
    """
    header = inspect(image, limits)
    source = Size(header.height, header.width)
    result = result_size(source, params)
    if result.pixels > limits.result_pixels:
        raise TooLarge(
            f"the result would have {result} = {result.pixels} pixels",
            field=next(name for name in ("scale", "width", "height") if getattr(params, name)),
            allowed=f"at most {limits.result_pixels} pixels",
        )
    return Outline(source, make_plan(result, model.tile_px, model.overlap_px, model.align_px))


def open_source(image: bytes, limits: ImageLimits) -> Source:
    """Decodes a picture.

    Raises:
        RequestError: if it does not decode.
    """
    picture = decode(image, limits)
    alpha = None if picture.alpha is None else to_levels(picture.alpha)
    return Source(to_levels(picture.colour), alpha)


def cut(source: Source, plan: Plan) -> Iterator[Levels]:
    """Makes the control picture, which is the source enlarged to the canvas, and crops it.

    Yields:
        One (tile_px, tile_px, 3) crop for each of the plan's tiles, in order.
    """
    colour, size = from_levels(source.colour), plan.result
    if source.alpha is None:
        enlarged = resize(colour, size.height, size.width)
    else:
        alpha = from_levels(source.alpha)
        enlarged, _ = resize_with_alpha(colour, alpha, size.height, size.width)
    canvas = pad_to_canvas(to_levels(enlarged), plan)
    for tile in plan.tiles:
        yield np.ascontiguousarray(canvas[tile.rows, tile.columns])


def finish(
    plan: Plan,
    params: ResolvedParams,
    backprojection_rounds: int,
    source: Source,
    tiles: Sequence[Levels],
) -> bytes:
    """Joins the tiles, ties the result to its source and encodes it.

    Args:
        plan: Where the tiles lie.
        params: Say the file format.
        backprojection_rounds: 0 leaves the network's result as it is.
        source: The decoded source.
        tiles: One (tile_px, tile_px, 3) array for each of the plan's tiles, in order.

    Raises:
        InvalidParameter: if the file format cannot hold a picture of this size.
    """
    colour = blend(tiles, plan)
    if backprojection_rounds:
        colour = backproject(colour, from_levels(source.colour), backprojection_rounds)
    alpha = None
    if source.alpha is not None:
        enlarged = resize(from_levels(source.alpha), plan.result.height, plan.result.width)
        alpha = np.clip(enlarged, 0, 1)
    return encode(colour, alpha, params.output_format, params.quality)
