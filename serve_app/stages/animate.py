"""Before the first stage and after the last one, for pictures that move: a file to frames, frames to a file.

Between the two each frame is a still picture like any other. This module refuses to know who carries frames
from one to the other, and how many at once.
"""

from __future__ import annotations

from collections.abc import Callable

from serve_app.contracts import ColorProfile, ModelInfo, OutputFormat, ResolvedParams
from serve_app.imaging.formats import check_moves
from serve_app.imaging.frames import Frames
from serve_app.imaging.inspect import inspect
from serve_app.imaging.join import join as join_files
from serve_app.imaging.motion import count_frames
from serve_app.imaging.worker import split_contained
from serve_app.settings import ImageLimits
from serve_app.stages.finish import provenance
from serve_app.stages.prepare import check_pixels, outline


def split(
    image: bytes, params: ResolvedParams, model: ModelInfo, limits: ImageLimits
) -> Frames | None:
    """Splits a moving picture; all that its header tells is judged before a frame is decoded.

    Args:
        image: The encoded file.
        params: What to do.
        model: Says how large a tile is.
        limits: On the upload, on frames, and on the source's and the result's pixels, of all frames together.

    Returns:
        Its frames as PNG files; None for a still picture.

    Raises:
        RequestError: not a picture that Tessera reads, over a limit, or no format that holds what comes out.
    """
    header = inspect(image, limits)
    frames = count_frames(image, header, limits)
    if frames < 2:
        return None
    result = outline(image, params, model, limits).plan.result
    check_moves(params.output_format, result.height, result.width)
    check_pixels(result, params, limits, frames)
    return split_contained(image, limits, frames)


def frame_params(params: ResolvedParams, gray: bool) -> ResolvedParams:
    """How one frame is made so that `join` can make the file that was asked for: a PNG, without loss.

    Args:
        params: Of the whole.
        gray: Whether its frames have one channel of colour.
    """
    if params.output_format is OutputFormat.PNG:
        return params
    changes: dict[str, object] = {"output_format": OutputFormat.PNG, "bit_depth": 8}
    if gray:  # the others hold gray as colour, which a profile for gray does not fit
        changes["color_profile"] = ColorProfile.SRGB
    return params.model_copy(update=changes)


def join(
    frames: Frames,
    take: Callable[[int], bytes],
    params: ResolvedParams,
    model: ModelInfo,
    limits: ImageLimits,
) -> bytes:
    """Joins enlarged frames to the result.

    Args:
        frames: Which picture each shows, and for how long.
        take: Gives an enlarged picture's file by its number, as often as it is asked for.
        params: Of the whole.
        model: The one that made them.
        limits: What reading their metadata may take.
    """
    told = provenance(params, model)
    return join_files(frames, take, params.output_format, params.quality, told, limits)
