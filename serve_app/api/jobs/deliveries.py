"""The log of messages to a job's webhook: to read, and to have one sent again.

It refuses to know how messages are sent.
"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request

from serve_app.api.body import tenant_of
from serve_app.api.jobs.desk import Desk
from serve_app.api.jobs.routes import FINDING, Number, Tenant
from serve_app.api.jobs.schemas import moment
from serve_app.api.schemas import Answer
from serve_app.jobs.records import Delivery
from serve_app.jobs.webhooks import message_id


class DeliveryAnswer(Answer):
    """A message, and what became of it."""

    number: int
    message_id: str = Field(description="The header `webhook-id`, the same at each attempt.")
    kind: str
    url: str
    status: str = Field(description="`pending`, `delivered` or `failed`.")
    attempts: int
    created_at: str
    next_at: str | None = Field(description="When it is sent next; null where it is not.")
    last_at: str | None
    last_status: int | None = Field(description="What was answered last.")
    last_error: str | None


class DeliveryList(Answer):
    """Messages, oldest first."""

    deliveries: list[DeliveryAnswer]


def delivery_routes(desk: Desk) -> APIRouter:
    """Reading and sending again."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.get("/{job_id}/deliveries", summary="Messages to a job's webhook", responses=FINDING)
    async def list_deliveries(
        request: Request, job_id: str, x_tenant_id: Tenant = None
    ) -> DeliveryList:
        """All of them, with what was answered."""
        job = await desk.job(job_id, tenant_of(request.headers))
        found = await (await desk.store()).deliveries(job.id)
        return DeliveryList(deliveries=list(map(_answer, found)))

    @router.post(
        "/{job_id}/deliveries/{number}/retry", summary="Send a message again", responses=FINDING
    )
    async def send_again(
        request: Request, job_id: str, number: Number, x_tenant_id: Tenant = None
    ) -> DeliveryAnswer:
        """From its first attempt, under the same id."""
        job = await desk.job(job_id, tenant_of(request.headers))
        return _answer(await (await desk.store()).redeliver(job.id, number))

    return router


def _answer(found: Delivery) -> DeliveryAnswer:
    return DeliveryAnswer(
        number=found.id,
        message_id=message_id(found),
        kind=found.kind,
        url=found.url,
        status=found.status,
        attempts=found.attempts,
        created_at=str(moment(found.created_at)),
        next_at=moment(found.next_at),
        last_at=moment(found.last_at),
        last_status=found.last_status,
        last_error=found.last_error,
    )
