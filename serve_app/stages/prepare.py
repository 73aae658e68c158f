"""The first stage: bytes to a decoded source and, a row of tiles at a time, to the crops that networks read.

The enlarged picture is never whole, unless a control other than `upscale` is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.contracts import UPSCALE, ModelInfo, ResolvedParams
from serve_app.controls.pictures import DepthEstimator, draw
from serve_app.errors import InvalidParameter, TooLarge
from serve_app.faces import can_find, find_faces
from serve_app.fidelity.denoise import denoise
from serve_app.imaging.codec import Picture
from serve_app.imaging.formats import check_size, stored_bits
from serve_app.imaging.inspect import inspect
from serve_app.imaging.worker import decode_contained
from serve_app.levels import Levels, from_levels, to_levels
from serve_app.settings import ImageLimits
from serve_app.stages.enlarge import Source, enlarged_rows
from serve_app.tiling.geometry import Size, result_size
from serve_app.tiling.grid import Plan, make_plan, mirrored, showing


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of a picture once its header is read: small, travels by value."""

    source: Size
    plan: Plan


@dataclass(frozen=True, slots=True)
class Faces:
    """What was found of faces, where that was asked for: small, travels by value.

    Attributes:
        count: How many.
        tiles: The indices of the tiles that show one.
    """

    count: int = 0
    tiles: frozenset[int] = frozenset()


def prepare(
    image: bytes,
    control_images: Mapping[str, bytes],
    params: ResolvedParams,
    model: ModelInfo,
    limits: ImageLimits,
    depth: DepthEstimator | None,
) -> Iterator[Outline | Faces | Source | Levels]:
    """Reads a request's pictures.

    Args:
        image: The encoded file.
        control_images: Encoded pictures by the name of their control.
        params: What to do.
        model: Says how large a tile is and what its controls read.
        limits: On each upload, the source and the result.
        depth: Estimates depth, where the model offers it.

    Yields:
        The outline, the faces, the decoded source, then the picture of each control but `upscale`, whole.

    Raises:
        RequestError: something cannot be read or is over a limit; all headers are judged before the first item.
    """
    found = outline(image, params, model, limits)
    check_controls(control_images, params, model, limits)
    yield found
    source = open_source(image, params, limits)
    yield look_for_faces(source, params, found.plan)
    yield source
    given = open_controls(control_images, limits)
    yield from draw_controls(source, found.plan.result, params, model, given, depth)


def outline(image: bytes, params: ResolvedParams, model: ModelInfo, limits: ImageLimits) -> Outline:
    """Reads a picture's header and plans its tiles. Decodes nothing.

    Args:
        image: The encoded file.
        params: Says how large the result is, and may lower its limit.
        model: Says how large a tile is.
        limits: On the upload, the source and the result.

    Raises:
        RequestError: not a picture that Tessera reads, over a limit, or no result that its format holds.
    """
    header = inspect(image, limits)
    return outline_of(Size(header.height, header.width), params, model, limits)


def outline_of(
    source: Size, params: ResolvedParams, model: ModelInfo, limits: ImageLimits, frames: int = 1
) -> Outline:
    """Plans the tiles of a picture of which only the size is known; see `outline`."""
    if params.face_safe and not can_find():
        raise InvalidParameter(
            "face_safe: this server has no detector of faces, since dlib has no build for its machine",
            field="face_safe",
            allowed="absent or false",
        )
    result = result_size(source, params)
    check_pixels(result, params, limits, frames)
    check_size(params.output_format, result.height, result.width)
    stored_bits(params.output_format, params.bit_depth, found=8)
    return Outline(source, make_plan(result, model.tile_px, model.overlap_px, model.align_px))


def check_pixels(
    result: Size, params: ResolvedParams, limits: ImageLimits, frames: int = 1
) -> None:
    """Judges a result's pixels, of all its frames together, by the server's limit and the caller's.

    Raises:
        TooLarge: over one of them.
    """
    field = next(name for name in ("scale", "width", "height") if getattr(params, name))
    limit = limits.result_pixels
    if params.max_pixels is not None and params.max_pixels < limit:
        field, limit = "max_pixels", params.max_pixels
    pixels = frames * result.pixels
    if pixels > limit:
        moving = f"{frames} frames of " if frames > 1 else ""
        raise TooLarge(
            f"the result would have {moving}{result} = {pixels} pixels",
            field=field,
            allowed=f"at most {limit} pixels",
        )


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


def open_source(image: bytes, params: ResolvedParams, limits: ImageLimits) -> Source:
    """Decodes a picture, and takes noise away where that is asked for.

    Raises:
        RequestError: if it does not decode.
    """
    picture = decode_contained(image, limits)
    colour = picture.colour
    if params.denoise > 0:
        colour = denoise(colour, params.denoise, picture.alpha)
    return Source(colour, picture.alpha, picture.traits)


def look_for_faces(source: Source, params: ResolvedParams, plan: Plan) -> Faces:
    """Looks for faces if that is asked for, and says which tiles show them."""
    if not params.face_safe:
        return Faces()
    places = find_faces(source.colour)
    height, width = source.colour.shape[:2]
    return Faces(len(places), showing(plan, Size(height, width), places))


def open_controls(control_images: Mapping[str, bytes], limits: ImageLimits) -> dict[str, Levels]:
    """Decodes the caller's control pictures, (h, w, 3). Transparent is black there, which means "nothing".

    Raises:
        RequestError: if one does not decode.
    """
    return {
        name: _on_black(decode_contained(data, limits, _field(name)))
        for name, data in control_images.items()
    }


def draw_controls(
    source: Source,
    size: Size,
    params: ResolvedParams,
    model: ModelInfo,
    given: Mapping[str, Levels],
    depth: DepthEstimator | None,
) -> Iterator[Levels]:
    """Draws what the ControlNets but that of `upscale` read, over the whole result.

    Args:
        source: The decoded source.
        size: The result's.
        params: Say which controls.
        model: Says what each reads.
        given: The caller's pictures by the control's name, of any size; they are stretched to the result.
        depth: Estimates depth, where the model offers it.

    Yields:
        One (height, width, 3 or 1) for each of `params.controls`.
    """
    if not params.controls:
        return
    enlarged = enlarged_rows(source, size, 0, size.height)
    for control in params.controls:
        info = model.controls[control.name]
        yield draw(info, source.colour, enlarged, given.get(control.name), depth)


def strip(
    plan: Plan, params: ResolvedParams, row: int, source: Source, drawn: Sequence[Levels]
) -> Iterator[Levels]:
    """Makes the crops of one row of tiles.

    Args:
        plan: Where the tiles lie.
        params: Say which controls, in which order.
        row: Of tiles, from 0.
        source: The decoded source; enlarged it is the picture of `upscale`.
        drawn: The pictures of the other controls, in order; (height, width, 3 or 1), the result's size.

    Yields:
        For each tile of the row, from the left, one (tile_px, tile_px, 3) crop of each control in order.
    """
    size, top = plan.result, plan.tops[row]
    bottom = min(top + plan.tile_px, size.height)
    below = mirrored(size.height, plan.canvas.height)[top : top + plan.tile_px]
    beside = mirrored(size.width, plan.canvas.width)
    first = min(top, int(below.min()))
    others = iter(drawn)
    bands = [
        enlarged_rows(source, size, first, bottom)
        if control.name == UPSCALE
        else next(others)[first:bottom]
        for control in params.all_controls
    ]
    for left in plan.lefts:
        for band in bands:
            crop = band[np.ix_(below - first, beside[left : left + plan.tile_px])]
            yield np.ascontiguousarray(np.broadcast_to(crop, (*crop.shape[:2], 3)))


def _on_black(picture: Picture) -> Levels:
    if picture.alpha is None:
        return picture.colour
    shown = from_levels(picture.colour) * from_levels(picture.alpha)[..., None]
    return to_levels(shown)


def _field(name: str) -> str:
    return f"control_images.{name}"
