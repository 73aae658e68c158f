"""`POST /v1/plan`: what a picture will cost, told before any of it is spent.

It refuses to know how the plan is made.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request

from serve_app.api.body import read_upload, tenant_of
from serve_app.api.jobs.desk import Desk
from serve_app.api.openapi import UPSCALING, failures, upscale_request
from serve_app.api.schemas import Answer, Problem
from serve_app.contracts import ModelInfo, ResolvedParams, Upscaler, resolve
from serve_app.fetch.client import Fetcher
from serve_app.jobs.planning import check_control_names, look, model_of, plan_of, step_seconds
from serve_app.models.cost import StepCost
from serve_app.presets import with_preset
from serve_app.settings import Settings


class PlanAnswer(Answer):
    """What a request will cost."""

    model: str
    source_width: int = Field(description="px, upright.")
    source_height: int = Field(description="px, upright.")
    width: int = Field(description="Of the result, px.")
    height: int = Field(description="Of the result, px.")
    frames: int
    tiles: int = Field(description="Of all frames.")
    steps: int = Field(description="Denoising steps that each tile runs at most.")
    tile_tflop: float | None = Field(
        description="Of one tile's steps at most; null where nobody knows."
    )
    tflop: float | None = Field(description="Of all tiles.")
    estimated_s: float | None = Field(
        description="Seconds of denoising at the pace of your last jobs; null where there is none."
    )
    queue_position: int | None = Field(
        description="Items of jobs that wait now; null without jobs."
    )


def plan_routes(
    upscaler: Upscaler,
    fetcher: Fetcher,
    desk: Desk | None,
    settings: Settings,
    cost: StepCost | None = None,
) -> APIRouter:
    """The route; without a desk nothing is known of what waits, without a cost none of TFLOP."""
    router = APIRouter(tags=["upscale"])

    @router.post(
        "/v1/plan",
        summary="What would it cost?",
        openapi_extra=upscale_request(),
        responses=failures(Problem, *UPSCALING),
    )
    async def plan(request: Request) -> PlanAnswer:
        """Takes what `POST /v1/upscale` takes, reads the picture's header, and computes nothing."""
        limits = settings.images
        upload = await read_upload(request, limits.upload_bytes)
        tenant = tenant_of(request.headers)
        params = with_preset(upload.params, settings.requests.presets)
        model = model_of(params, await upscaler.models())
        resolved = resolve(params, model, drawn_seed=0)
        check_control_names(list(upload.control_images), resolved, model)
        image = upload.image
        if image is None:
            url = upload.image_url or ""
            image = await fetcher.fetch(url, limits.upload_bytes, request.state.request_id)
        seen = await asyncio.to_thread(look, image, limits)
        found, frames = plan_of(seen, resolved, model, limits)
        facts = {
            "source_width": seen.size.width,
            "source_height": seen.size.height,
            "width": found.result.width,
            "height": found.result.height,
            "frames": frames,
            "tiles": found.count * frames,
        }
        tile = (found.tile_px, found.tile_px)
        text_tokens = settings.prompts.tokens if model.takes_prompt else 0
        tflop = None if cost is None else _tile_tflop(cost, tile, resolved, text_tokens)
        return await _answer(facts, model, resolved, tflop, desk, tenant)

    return router


def _tile_tflop(
    cost: StepCost, tile: tuple[int, int], params: ResolvedParams, text_tokens: int
) -> float:
    """Of all steps of a tile, as if every control ran in each."""
    names = [control.name for control in params.all_controls]
    passes = 2 if params.true_cfg_scale > 1 else 1
    return params.steps * cost.flop(tile, names, text_tokens, passes) / 1e12


async def _answer(
    facts: dict[str, int],
    model: ModelInfo,
    params: ResolvedParams,
    tile_tflop: float | None,
    desk: Desk | None,
    tenant: str,
) -> PlanAnswer:
    pace: float | None = None
    waiting: int | None = None
    if desk is not None:
        store = await desk.store()
        pace = await step_seconds(store, tenant)
        waiting = await store.waiting()
    return PlanAnswer(
        model=model.name,
        **facts,
        steps=params.steps,
        tile_tflop=tile_tflop,
        tflop=None if tile_tflop is None else tile_tflop * facts["tiles"],
        estimated_s=None if pace is None else round(pace * params.steps * facts["tiles"], 1),
        queue_position=waiting,
    )
