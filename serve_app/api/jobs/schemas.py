"""The JSON of jobs that leaves the HTTP door.

Times are RFC 3339, UTC; paths are relative to the server's root. It refuses to know status codes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from serve_app.api.schemas import Answer
from serve_app.contracts import Priority
from serve_app.jobs.records import ItemRecord, JobRecord, ResultRecord
from serve_app.jobs.states import ItemStatus, JobStatus


class CountsAnswer(Answer):
    """How many of a job's items are where."""

    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


class JobAnswer(Answer):
    """A job as it stands."""

    id: str
    status: JobStatus
    priority: Priority
    params: dict[str, Any] = Field(description="Parameters of all items, a preset's own filled in.")
    counts: CountsAnswer
    created_at: str
    started_at: str | None
    finished_at: str | None
    idempotency_key: str | None
    webhook_url: str | None
    last_event: int = Field(description="Sequence number of the newest event.")
    links: dict[str, str] = Field(description="Where its items, events and results are.")


class JobPage(Answer):
    """Some jobs, newest first."""

    jobs: list[JobAnswer]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class ResultAnswer(Answer):
    """A finished picture."""

    media_type: str
    width: int = Field(description="px.")
    height: int = Field(description="px.")
    size_bytes: int
    sha256: str = Field(description="Of the file; its ETag, too.")
    url: str
    details: dict[str, Any] = Field(description="Report, resolved parameters, timings and tiles.")


class ItemAnswer(Answer):
    """One picture of a job."""

    number: int = Field(description="Its place in the job, from 0.")
    name: str
    status: ItemStatus
    params: dict[str, Any] = Field(description="As it is run; the seed was drawn at submission.")
    source_url: str | None
    attempts: int
    tiles_done: int
    tiles_total: int
    error: dict[str, Any] | None = Field(
        description="A problem's members: why the last attempt failed."
    )
    result: ResultAnswer | None
    started_at: str | None
    finished_at: str | None


class ItemPage(Answer):
    """Some items in order."""

    items: list[ItemAnswer]
    next_after: int | None = Field(description="`after` of the next page; null on the last.")


def job_answer(job: JobRecord) -> JobAnswer:
    """A job in the words of its answer."""
    here = f"/v1/jobs/{job.id}"
    links = {"self": here} | {name: f"{here}/{name}" for name in ("items", "events", "results")}
    names = ("id", "status", "priority", "params", "idempotency_key", "webhook_url", "last_event")
    counts = {status.value: getattr(job.counts, status.value) for status in ItemStatus}
    return JobAnswer(
        **{name: getattr(job, name) for name in names},
        counts=CountsAnswer(total=job.counts.total, **counts),
        created_at=str(moment(job.created_at)),
        started_at=moment(job.started_at),
        finished_at=moment(job.finished_at),
        links=links,
    )


def item_answer(item: ItemRecord) -> ItemAnswer:
    """An item in the words of its answer."""
    names = ["number", "name", "status", "params", "source_url", "attempts"]
    names += ["tiles_done", "tiles_total", "error"]
    return ItemAnswer(
        **{name: getattr(item, name) for name in names},
        result=_result(item, item.result) if item.result else None,
        started_at=moment(item.started_at),
        finished_at=moment(item.finished_at),
    )


def _result(item: ItemRecord, result: ResultRecord) -> ResultAnswer:
    names = ("media_type", "width", "height", "size_bytes", "details")
    url = f"/v1/jobs/{item.job_id}/results/{item.number}"
    return ResultAnswer(**{n: getattr(result, n) for n in names}, sha256=result.blob, url=url)


def moment(at: float | None) -> str | None:
    """A time in RFC 3339, UTC."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
