"""What a picture costs: for the plan that the page shows, and for the seconds that a GPU is asked for.

It refuses to decode a picture and to ask an accelerator.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from pathlib import Path
from statistics import median

from serve_app.contracts import ModelInfo, UpscaleParams, UpscaleRequest, UpscaleResult, resolve
from serve_app.errors import RequestError
from serve_app.jobs.planning import look, model_of, plan_of
from serve_app.models.cost import StepCost
from serve_app.presets import with_preset
from serve_app.settings import Settings
from serve_app.ui.backend import Plan

BEGIN_S = 20
"""Moving the weights to the GPU and warming up. Assumed: FLUX's 34 GB at 5 GB/s, and a few steps."""
TFLOP_PER_S = 150
"""Of ZeroGPU's slice, 60 of an H200's 132 multiprocessors, of which real kernels reach half. Assumed."""
_REMEMBERED = 20
_MEGAPIXEL_S = 0.5
"""Reading and writing files while the GPU waits."""


class Price:
    """Tells costs.

    Args:
        info: The model.
        cost: Of its steps.
        settings: Limits on pictures, and presets.
        lent: Whether the GPU is lent by the second; else the time is that of the last pictures.
    """

    def __init__(self, info: ModelInfo, cost: StepCost, settings: Settings, lent: bool) -> None:
        self._info = info
        self._cost = cost
        self._settings = settings
        self._lent = lent
        self._paces_s: deque[float] = deque(maxlen=_REMEMBERED)

    def heard(self, result: UpscaleResult) -> None:
        """Learns from a result how long a step of a tile takes here."""
        work, spent_s = result.tiles * result.params.steps, result.timings_s.get("denoise")
        if work and spent_s:
            self._paces_s.append(spent_s / work)

    async def plan(self, picture: Path, params: UpscaleParams, tenant: str) -> Plan:
        """What a file will cost; see `ui.memory.Planner`."""

        def read() -> Plan:
            return self.of(picture.read_bytes(), params)

        return await asyncio.to_thread(read)

    def seconds(self, request: UpscaleRequest) -> int:
        """Seconds of the GPU to ask for.

        A picture that cannot be read asks for as little as possible: it is refused where it would be computed.
        """
        try:
            plan = self.of(request.image, request.params)
        except RequestError:
            return BEGIN_S
        return math.ceil(_seconds(plan))

    def of(self, image: bytes, params: UpscaleParams) -> Plan:
        """The plan of a picture.

        Raises:
            RequestError: a picture or a parameter that would be refused.
        """
        limits = self._settings.images
        filled = with_preset(params, self._settings.requests.presets)
        model = model_of(filled, [self._info])
        resolved = resolve(filled, model, drawn_seed=0)
        seen = look(image, limits)
        found, frames = plan_of(seen, resolved, model, limits)
        names = [control.name for control in resolved.all_controls]
        passes = 2 if resolved.true_cfg_scale > 1 else 1
        tokens = self._settings.prompts.tokens if model.takes_prompt else 0
        step = self._cost.flop((found.tile_px, found.tile_px), names, tokens, passes)
        tiles = found.count * frames
        plan = Plan(
            model=model.name,
            source_width=seen.size.width,
            source_height=seen.size.height,
            width=found.result.width,
            height=found.result.height,
            frames=frames,
            tiles=tiles,
            steps=resolved.steps,
            tflop=tiles * resolved.steps * step / 1e12,
        )
        return plan.model_copy(update={"estimated_s": self._estimated_s(plan)})

    def _estimated_s(self, plan: Plan) -> float | None:
        if self._lent:
            return _seconds(plan)
        return median(self._paces_s) * plan.tiles * plan.steps if self._paces_s else None


def _seconds(plan: Plan) -> float:
    megapixels = plan.frames * plan.height * plan.width / 1e6
    return BEGIN_S + (plan.tflop or 0) / TFLOP_PER_S + _MEGAPIXEL_S * megapixels
