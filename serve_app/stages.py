"""The two CPU stages: bytes to tile crops, and tiles to bytes. No torch, so their processes stay small.

What travels between the stages are levels (16 bit), never floats: see `tiling.levels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.contracts import ModelInfo, ResolvedParams
from serve_app.controls.pictures import DepthEstimator, draw
from serve_app.errors import InvalidParameter, TooLarge
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


def prepare(
    image: bytes,
    control_images: Mapping[str, bytes],
    params: ResolvedParams,
    model: ModelInfo,
    limits: ImageLimits,
    depth: DepthEstimator | None,
) -> Iterator[Outline | Source | Levels]:
    """The whole first stage.

    Args:
        image: The encoded file.
        control_images: Encoded pictures by the name of their control.
        params: What to do.
        model: Says how large a tile is and what its controls read.
        limits: On each upload, the source and the result.
        depth: Estimates depth, where the model offers it.

    Yields:
        The outline, the decoded source, then the crops as `cut` does.

    Raises:
        RequestError: something cannot be read or is over a limit; all headers are judged before the first item.
    """
    found = outline(image, params, model, limits)
    check_controls(control_images, params, model, limits)
    yield found
    source = open_source(image, limits)
    yield source
    given = open_controls(control_images, limits)
    yield from cut(
        draw_controls(source, found.plan.result, params, model, given, depth), found.plan
    )


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


def check_controls(
    control_images: Mapping[str, bytes],
    params: ResolvedParams,
    model: ModelInfo,
    limits: ImageLimits,
) -> None:
    """Judges the caller's control pictures by their names and headers. Decodes nothing.

    Raises:
        RequestError: a picture is missing, has no control, is not one that Tessera reads, or is over a limit.
    """
    kinds = {control.name: model.controls[control.name].picture for control in params.all_controls}
    wanted = [name for name, kind in kinds.items() if kind == "given"]
    for name in (*wanted, *control_images):
        if name in wanted and name in control_images:
            inspect(control_images[name], limits, _field(name))
            continue
        if name in wanted:
            fault = "this control needs a picture of yours"
        elif name in kinds:
            fault = "this control's picture is made from the source"
        else:
            fault = "no such control was asked for in controls"
        allowed = f"pictures for: {', '.join(wanted)}" if wanted else "absent"
        raise InvalidParameter(f"{_field(name)}: {fault}", field=_field(name), allowed=allowed)


def open_source(image: bytes, limits: ImageLimits) -> Source:
    """Decodes a picture.

    Raises:
        RequestError: if it does not decode.
    """
    picture = decode(image, limits)
    alpha = None if picture.alpha is None else to_levels(picture.alpha)
    return Source(to_levels(picture.colour), alpha)


def open_controls(control_images: Mapping[str, bytes], limits: ImageLimits) -> dict[str, Levels]:
    """Decodes the caller's control pictures, (h, w, 3). Transparent is black there, which means "nothing".

    Raises:
        RequestError: if one does not decode.
    """
    found = {}
    for name, data in control_images.items():
        picture = decode(data, limits, _field(name))
        shown = (
            picture.colour if picture.alpha is None else picture.colour * picture.alpha[..., None]
        )
        found[name] = to_levels(shown)
    return found


def draw_controls(
    source: Source,
    size: Size,
    params: ResolvedParams,
    model: ModelInfo,
    given: Mapping[str, Levels],
    depth: DepthEstimator | None,
) -> list[Levels]:
    """Draws what the ControlNets read, over the whole result: one for each of `params.all_controls`.

    Args:
        source: The decoded source; enlarged it is the picture of `upscale`.
        size: The result's.
        params: Say which controls.
        model: Says what each reads.
        given: The caller's pictures by the control's name, of any size; they are stretched to the result.
        depth: Estimates depth, where the model offers it.
    """
    enlarged = _enlarge(source, size)
    return [
        draw(model.controls[control.name], source.colour, enlarged, given.get(control.name), depth)
        for control in params.all_controls
    ]


def _enlarge(source: Source, size: Size) -> Levels:
    colour = from_levels(source.colour)
    if source.alpha is None:
        return to_levels(resize(colour, size.height, size.width))
    alpha = from_levels(source.alpha)
    return to_levels(resize_with_alpha(colour, alpha, size.height, size.width)[0])


def cut(pictures: Sequence[Levels], plan: Plan) -> Iterator[Levels]:
    """Crops control pictures, tile by tile.

    Args:
        pictures: (height, width, 3 or 1), the result's size.
        plan: Where the tiles lie.

    Yields:
        For each of the plan's tiles in order, one (tile_px, tile_px, 3) crop of each picture in order.
    """
    canvases = [pad_to_canvas(picture, plan) for picture in pictures]
    for tile in plan.tiles:
        for canvas in canvases:
            crop = canvas[tile.rows, tile.columns]
            yield np.ascontiguousarray(np.broadcast_to(crop, (*crop.shape[:2], 3)))


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


def _field(name: str) -> str:
    return f"control_images.{name}"
