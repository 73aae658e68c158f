"""Replicate's predictions: each a durable job of one picture, under the job's own id.

It refuses to know how jobs are kept and run. Errors are problem documents, as Replicate's own are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve_app.api.body import decode_picture, tenant_of
from serve_app.api.dialects.replicate_files import Files, file_routes, root
from serve_app.api.dialects.replicate_schemas import (
    NewPrediction,
    PredictionAnswer,
    PredictionPage,
    ReplicateModel,
    VersionAnswer,
    VersionPage,
    model_of,
    prediction_of,
    version_of,
)
from serve_app.api.dialects.speaking import body_of, read_body, tenant_parameter
from serve_app.api.jobs.desk import Desk
from serve_app.api.jobs.gathering import Draft, Gathered, fetchable
from serve_app.api.jobs.submission import Order, take_in, webhook_of
from serve_app.api.multipart import IMAGE_FIELD
from serve_app.api.openapi import UPSCALING, failures
from serve_app.api.schemas import Problem
from serve_app.contracts import ModelInfo, Priority, Upscaler
from serve_app.errors import InvalidParameter, NotFound
from serve_app.jobs.planning import look
from serve_app.jobs.records import JobRecord
from serve_app.settings import Settings

LONGEST_WAIT_S = 60
_PAGE = 20
_ITEMS = 100  # of a job of several pictures that a prediction tells of
_WAIT = re.compile(r"(?:^|[\s,;])wait(?:=(\d{1,4}))?(?:$|[\s,;])")
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": f"`wait` or `wait=SECONDS`, 1 to {LONGEST_WAIT_S}: answer when it has ended.",
    "schema": {"type": "string"},
}
_MINE: dict[str, Any] = {
    "responses": failures(Problem, 404, 422, 500),
    "openapi_extra": {"parameters": tenant_parameter()},
}


class Predictions:
    """Predictions over jobs."""

    def __init__(self, upscaler: Upscaler, desk: Desk, files: Files, settings: Settings) -> None:
        self._upscaler = upscaler
        self._desk = desk
        self._files = files
        self._settings = settings

    async def create(self, request: Request, asked: NewPrediction, version: str | None) -> Response:
        """Submits a job, and waits for it if that is preferred."""
        wait_s = _wait_s(request)
        if version is not None:
            name = re.split(r"[/:]", version)
            known = [model.name for model in await self._upscaler.models()]
            found = next((one for one in reversed(name) if one in known), None)
            if found is None:
                raise NotFound(f"there is no model {version[:80]!r}", field="version")
            asked.input.setdefault("model", found)
        draft = await self._draft(request, asked.input.pop(IMAGE_FIELD, None))
        order = Order(
            tenant_of(request.headers),
            request.state.request_id,
            Priority.INTERACTIVE,
            webhook_url=self._webhook(asked),
        )
        found_all = Gathered([draft], asked.input)
        job, _ = await take_in(found_all, order, self._upscaler, self._desk, self._settings)
        if wait_s:
            await self._wait(job, wait_s)
        job = await self._desk.job(job.id, job.tenant)
        answer = await self.answer(request, job, still=bool(wait_s))
        return JSONResponse(
            answer.model_dump(mode="json"), 201, {"Location": f"/v1/predictions/{job.id}"}
        )

    async def answer(
        self, request: Request, job: JobRecord, *, still: bool = False
    ) -> PredictionAnswer:
        """A job as a prediction; see `prediction_of`."""
        items = await (await self._desk.store()).items(job.id, limit=_ITEMS)
        default = (await self._upscaler.models())[0].name
        return prediction_of(job, items, root(request), default, still=still)

    async def _draft(self, request: Request, image: Any) -> Draft:
        """The picture: in the body, kept here before, or somewhere else."""
        limits = self._settings.images
        where = "input.image"
        if not isinstance(image, str):
            raise InvalidParameter(f"{where}: missing", field=where, allowed="a URL")
        if image[:5].lower() == "data:":
            data = decode_picture(image, where, limits.upload_bytes)
        elif (kept := await self._files.read(request, image)) is not None:
            data = kept
        else:
            return Draft("picture", url=fetchable(image, where, self._settings.fetch), seen=None)
        seen = await asyncio.to_thread(look, data, limits)
        return Draft("picture", await self._desk.keep(data), seen=seen)

    def _webhook(self, asked: NewPrediction) -> str | None:
        url = asked.webhook if asked.webhook is not None else asked.webhook_completed
        wanted = asked.webhook_events_filter
        if wanted and "completed" not in wanted:
            return None
        return webhook_of(url, self._settings.jobs.webhooks)

    async def _wait(self, job: JobRecord, longest_s: float) -> None:
        hub = await self._desk.hub()
        try:
            async with asyncio.timeout(longest_s), aclosing(hub.follow(job)) as tale:  # type: ignore[type-var]
                async for _ in tale:
                    pass
        except TimeoutError:
            return


def replicate_routes(upscaler: Upscaler, desk: Desk, settings: Settings) -> APIRouter:
    """The dialect."""
    router = APIRouter(tags=["dialect: Replicate"])
    files = Files(desk, settings)
    predictions = Predictions(upscaler, desk, files, settings)
    body = body_of(NewPrediction)
    body["parameters"] = [*body["parameters"], _PREFER]
    submitting: dict[str, Any] = {
        "status_code": 201,
        "response_model": PredictionAnswer,
        "responses": failures(Problem, 404, *UPSCALING),
        "openapi_extra": body,
    }
    limit_bytes = settings.images.upload_bytes

    @router.post("/v1/predictions", **submitting)
    async def create_prediction(request: Request) -> Any:
        """Upscales a picture in the background; `Prefer: wait` waits for it."""
        asked = await read_body(request, NewPrediction, limit_bytes)
        return await predictions.create(request, asked, asked.version)

    @router.post("/v1/models/{owner}/{name}/predictions", **submitting)
    async def create_model_prediction(request: Request, owner: str, name: str) -> Any:
        """The same with a model that is named in the path."""
        asked = await read_body(request, NewPrediction, limit_bytes)
        return await predictions.create(request, asked, f"{owner}/{name}")

    @router.get("/v1/predictions", **_MINE)
    async def list_predictions(
        request: Request,
        cursor: Annotated[str | None, Query(pattern="^job_[0-9a-z]{26}$")] = None,
    ) -> PredictionPage:
        """Your jobs, newest first."""
        store = await desk.store()
        page = await store.jobs(tenant_of(request.headers), None, cursor, _PAGE)
        here = f"{root(request)}/v1/predictions"
        more = page.next_cursor
        return PredictionPage(
            next=f"{here}?cursor={more}" if more else None,
            results=[await predictions.answer(request, job) for job in page.jobs],
        )

    @router.get("/v1/predictions/{job_id}", **_MINE)
    async def get_prediction(request: Request, job_id: str) -> PredictionAnswer:
        """As it stands."""
        job = await desk.job(job_id, tenant_of(request.headers))
        return await predictions.answer(request, job)

    @router.post("/v1/predictions/{job_id}/cancel", **_MINE)
    async def cancel_prediction(request: Request, job_id: str) -> PredictionAnswer:
        """Gives it up; one that runs stops within a step."""
        job = await desk.job(job_id, tenant_of(request.headers))
        job = await (await desk.store()).cancel(job.id, job.tenant)
        return await predictions.answer(request, job)

    _add_catalogue(router, upscaler)
    router.include_router(file_routes(files))
    return router


def _add_catalogue(router: APIRouter, upscaler: Upscaler) -> None:
    known = {"responses": failures(Problem, 404, 422, 500)}

    @router.get("/v1/models/{owner}/{name}", **known)  # type: ignore[arg-type]
    async def get_model(request: Request, owner: str, name: str) -> ReplicateModel:
        """A model; whose it is said to be does not count."""
        return model_of(_named(await upscaler.models(), name), owner, root(request))

    @router.get("/v1/models/{owner}/{name}/versions", **known)  # type: ignore[arg-type]
    async def list_versions(owner: str, name: str) -> VersionPage:
        """A model's one version."""
        return VersionPage(results=[version_of(_named(await upscaler.models(), name))])

    @router.get("/v1/models/{owner}/{name}/versions/{version}", **known)  # type: ignore[arg-type]
    async def get_version(owner: str, name: str, version: str) -> VersionAnswer:
        """A model's one version, which has the model's name."""
        model = _named(await upscaler.models(), name)
        return version_of(_named([model], version))


def _named(models: Sequence[ModelInfo], name: str) -> ModelInfo:
    for model in models:
        if model.name == name:
            return model
    raise NotFound(f"there is no model {name[:80]!r}", field="name")


def _wait_s(request: Request) -> int:
    """Seconds that the client prefers to wait for the end; 0 where it does not."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    if found is None:
        return 0
    return min(LONGEST_WAIT_S, int(found[1] or LONGEST_WAIT_S))
