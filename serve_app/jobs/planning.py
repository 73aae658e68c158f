"""What a picture will cost, from its header alone: nothing is decoded and no accelerator is asked.

This module refuses to know how pictures come in, and what becomes of a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from serve_app.contracts import ModelInfo, ResolvedParams, UpscaleParams
from serve_app.errors import InvalidParameter
from serve_app.imaging.inspect import FIELD, inspect
from serve_app.imaging.motion import count_frames
from serve_app.jobs.records import ItemRecord
from serve_app.jobs.states import ItemStatus
from serve_app.jobs.store import Store
from serve_app.settings import ImageLimits
from serve_app.stages.prepare import outline_of
from serve_app.tiling.geometry import Size
from serve_app.tiling.grid import Plan

_JOBS_LOOKED_AT = 5
_ITEMS_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file's header says: its size as it is seen, px, and how many frames it has."""

    size: Size
    frames: int = 1


def look(data: bytes, limits: ImageLimits, field: str = FIELD) -> Seen:
    """Reads a file's header.

    Args:
        data: The whole file.
        limits: On uploads and sources.
        field: Its name in what errors say.

    Raises:
        RequestError: see `imaging.inspect.inspect`.
    """
    header = inspect(data, limits, field)
    return Seen(Size(header.height, header.width), count_frames(data, header, limits))


def plan_of(
    seen: Seen, params: ResolvedParams, model: ModelInfo, limits: ImageLimits
) -> tuple[Plan, int]:
    """Plans a picture.

    Args:
        seen: Its header.
        params: What is asked for.
        model: Says how large a tile is.
        limits: On results.

    Returns:
        The plan of one frame, and the number of frames that are enlarged.

    Raises:
        RequestError: a result over a limit, or that its format does not hold.
    """
    frames = seen.frames if params.animated else 1
    return outline_of(seen.size, params, model, limits, frames).plan, frames


def model_of(params: UpscaleParams, models: Sequence[ModelInfo]) -> ModelInfo:
    """The model that parameters name, the first where they name none; raises InvalidParameter."""
    if params.model is None:
        return models[0]
    for model in models:
        if model.name == params.model:
            return model
    names = ", ".join(model.name for model in models)
    raise InvalidParameter(
        f"model: there is no model {params.model!r}", field="model", allowed=names
    )


def check_control_names(given: Sequence[str], params: ResolvedParams, model: ModelInfo) -> None:
    """Judges whether the controls that read a caller's picture, and only they, have one.

    Raises:
        InvalidParameter: naming the first that lacks one, or has one in vain.
    """
    wanted = {c.name for c in params.all_controls if model.controls[c.name].picture == "given"}
    for name in sorted(wanted ^ set(given)):
        fault = "needs a picture of yours" if name in wanted else "takes no picture of yours"
        field = f"control_image_{name}"
        allowed = f"pictures for: {', '.join(sorted(wanted))}" if wanted else "absent"
        raise InvalidParameter(f"{field}: this control {fault}", field=field, allowed=allowed)


async def step_seconds(store: Store, tenant: str) -> float | None:
    """Seconds that one step of one tile took lately, the median of a tenant's finished items.

    None where nothing was finished. What shares the denoisers is in it, as it will be in what comes.
    """
    page = await store.jobs(tenant, limit=_JOBS_LOOKED_AT)
    paces: list[float] = []
    for job in page.jobs:
        if job.counts.succeeded:
            done = await store.items(job.id, ItemStatus.SUCCEEDED, limit=_ITEMS_LOOKED_AT)
            paces += [pace for item in done if (pace := _pace(item)) is not None]
    return median(paces) if paces else None


def _pace(item: ItemRecord) -> float | None:
    details = item.result.details if item.result else {}
    tiles = details.get("tiles", 0) - details.get("tiles_reused", 0)
    steps = details.get("params", {}).get("steps", 0)
    seconds = details.get("timings_s", {}).get("denoise")
    return float(seconds) / (tiles * steps) if seconds and tiles > 0 and steps else None
