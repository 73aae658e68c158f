"""The routes of jobs, each a few lines: whose is it, ask the store, answer.

It refuses to know how bodies are read, files are sent and events are told.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve_app.api.body import tenant_of
from serve_app.api.jobs.desk import Desk
from serve_app.api.jobs.documents import submit_request, submit_responses
from serve_app.api.jobs.following import MOST, JobEvents, place_of
from serve_app.api.jobs.results import blob_response, file_response, zip_response
from serve_app.api.jobs.schemas import (
    ItemPage,
    JobAnswer,
    JobPage,
    item_answer,
    job_answer,
)
from serve_app.api.jobs.submission import submit
from serve_app.api.negotiation import EVENTS
from serve_app.api.openapi import failures
from serve_app.api.schemas import Problem
from serve_app.contracts import TENANT_PATTERN, Upscaler
from serve_app.errors import NotFound
from serve_app.jobs.states import ItemStatus, JobStatus
from serve_app.settings import Settings

Tenant = Annotated[
    str | None, Header(alias="X-Tenant-Id", pattern=TENANT_PATTERN, description="On whose behalf.")
]
Number = Annotated[int, Path(ge=0, le=MOST, description="Of the item in its job, from 0.")]
FINDING = failures(Problem, 404, 409, 422, 500)
"""What asking about a job may end with."""


def _file(media_type: str) -> dict[str, Any]:
    """A route that answers with a file, or with 304 where the client has it."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    answers = {
        200: {"description": "The file.", "content": content},
        304: {"description": "The client has it, by its `If-None-Match`."},
    }
    return {"response_class": Response, "responses": answers | FINDING}


def job_routes(upscaler: Upscaler, desk: Desk, settings: Settings) -> APIRouter:
    """Submitting, listing, giving up and trying again."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.post(
        "",
        summary="Submit pictures as a job",
        status_code=202,
        response_class=Response,
        responses=submit_responses(),
        openapi_extra=submit_request(),
    )
    async def submit_job(request: Request) -> Response:
        """Send many files, a ZIP, or a list of URLs; the answer comes at once, the pictures when they are done.

        A repetition under the same `Idempotency-Key` is answered with the same job and 200.
        """
        job, new = await submit(request, upscaler, desk, settings)
        answer = job_answer(job).model_dump(mode="json")
        return JSONResponse(answer, 202 if new else 200, {"Location": f"/v1/jobs/{job.id}"})

    @router.get("", summary="Your jobs, newest first", responses=FINDING)
    async def list_jobs(
        request: Request,
        status: JobStatus | None = None,
        cursor: Annotated[str | None, Query(pattern="^job_[0-9a-z]{26}$")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        x_tenant_id: Tenant = None,
    ) -> JobPage:
        """Goes on from `cursor`, which is the page before's `next_cursor`."""
        store = await desk.store()
        page = await store.jobs(tenant_of(request.headers), status, cursor, limit)
        return JobPage(jobs=[job_answer(job) for job in page.jobs], next_cursor=page.next_cursor)

    @router.get("/{job_id}", summary="One job", responses=FINDING)
    async def get_job(request: Request, job_id: str, x_tenant_id: Tenant = None) -> JobAnswer:
        """As it stands."""
        return job_answer(await desk.job(job_id, tenant_of(request.headers)))

    @router.get("/{job_id}/items", summary="A job's pictures", responses=FINDING)
    async def list_items(
        request: Request,
        job_id: str,
        status: ItemStatus | None = None,
        after: Annotated[int, Query(ge=-1, le=MOST)] = -1,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        x_tenant_id: Tenant = None,
    ) -> ItemPage:
        """In order, from the one after number `after`."""
        job = await desk.job(job_id, tenant_of(request.headers))
        found = await (await desk.store()).items(job.id, status, after, limit + 1)
        more = found[limit - 1].number if len(found) > limit else None
        return ItemPage(items=[item_answer(item) for item in found[:limit]], next_after=more)

    @router.delete("/{job_id}", summary="Give a job up", responses=FINDING)
    async def cancel_job(request: Request, job_id: str, x_tenant_id: Tenant = None) -> JobAnswer:
        """What waits is cancelled at once, what runs within a step. An ended job stays as it is."""
        tenant = tenant_of(request.headers)
        job = await desk.job(job_id, tenant)
        return job_answer(await (await desk.store()).cancel(job.id, tenant))

    @router.post(
        "/{job_id}/retry", summary="Try failed and cancelled pictures again", responses=FINDING
    )
    async def retry_job(request: Request, job_id: str, x_tenant_id: Tenant = None) -> JobAnswer:
        """From their first attempt; what has a result keeps it."""
        tenant = tenant_of(request.headers)
        job = await desk.job(job_id, tenant)
        return job_answer(await (await desk.store()).retry(job.id, tenant))

    return router


def file_routes(desk: Desk) -> APIRouter:
    """What jobs make, and how they get on."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.get("/{job_id}/results", summary="All results as a ZIP", **_file("application/zip"))
    async def get_results(request: Request, job_id: str, x_tenant_id: Tenant = None) -> Response:
        """Those that are there; 409 while there is none."""
        job = await desk.job(job_id, tenant_of(request.headers))
        return await zip_response(await desk.store(), desk.blobs, job.id)

    @router.get("/{job_id}/results/{number}", summary="One result", **_file("image/*"))
    async def get_result(
        request: Request, job_id: str, number: Number, x_tenant_id: Tenant = None
    ) -> Response:
        """The file, with the headers of `POST /v1/upscale`; 409 while it is not there."""
        job = await desk.job(job_id, tenant_of(request.headers))
        item = await (await desk.store()).item(job.id, number)
        return await file_response(request, desk.blobs, item)

    @router.get(
        "/{job_id}/items/{number}/preview",
        summary="A running picture, small",
        **_file("image/jpeg"),
    )
    async def get_preview(
        request: Request, job_id: str, number: Number, x_tenant_id: Tenant = None
    ) -> Response:
        """A JPEG of the tiles that are there; 404 where there is none, or not any more."""
        job = await desk.job(job_id, tenant_of(request.headers))
        blob = await (await desk.store()).preview(job.id, number)
        if blob is None:
            raise NotFound(f"the item {number} has no preview now")
        return await blob_response(request, desk.blobs, blob, "image/jpeg", {})

    @router.get("/{job_id}/events", summary="Follow a job", **_file(EVENTS))
    async def follow_job(
        request: Request,
        job_id: str,
        after: Annotated[int | None, Query(ge=0, le=MOST)] = None,
        x_tenant_id: Tenant = None,
    ) -> Response:
        """Server-sent events, `id` being their sequence; `Last-Event-ID` or `after` goes on behind one."""
        place = place_of(request, after)
        job = await desk.job(job_id, tenant_of(request.headers))
        return JobEvents(await desk.hub(), job, place)

    return router
