"""The JSON that Replicate's clients send and read, and a job in these words.

Source: Replicate's HTTP API reference and its Python client. It refuses to know the store.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.jobs.schemas import moment
from serve_app.api.openapi import parameter_schemas
from serve_app.contracts import ModelInfo
from serve_app.jobs.records import ItemRecord, JobRecord
from serve_app.jobs.states import JobStatus

OWNER = "tessera"
BEGINNING = "1970-01-01T00:00:00Z"
"""When a model was made is not known."""
_BAR_WIDTH = 10

Status = Literal["starting", "processing", "succeeded", "failed", "canceled"]
WebhookEvent = Literal["start", "output", "logs", "completed"]

_STATUS: dict[JobStatus, Status] = {
    JobStatus.QUEUED: "starting",
    JobStatus.RUNNING: "processing",
    JobStatus.CANCELLING: "processing",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "canceled",
}


class NewPrediction(BaseModel):
    """The body of a new prediction; other members are passed over."""

    model_config = ConfigDict(extra="ignore")

    version: str | None = Field(None, description="A model: `NAME`, `OWNER/NAME` or its version.")
    input: dict[str, Any] = Field(
        description="`image`, an address or a `data:` URL, and parameters of `POST /v1/upscale`."
    )
    webhook: str | None = Field(
        None, description="Told when it has ended, as a job's `webhook_url`: docs/dialects.md."
    )
    webhook_completed: str | None = Field(None, description="The same under its older name.")
    webhook_events_filter: list[WebhookEvent] | None = Field(
        None, description="Without `completed`, nothing is told."
    )


class PredictionAnswer(BaseModel):
    """A job in the words of this dialect."""

    id: str
    model: str
    version: str
    status: Status
    input: dict[str, Any]
    output: str | list[str] | None = Field(
        description="Where the result lies; of a job of several pictures, a list."
    )
    logs: str = Field(description="The last line says how far it is, as a progress bar.")
    error: str | None
    metrics: dict[str, float]
    created_at: str
    started_at: str | None
    completed_at: str | None
    urls: dict[str, str]


class PredictionPage(BaseModel):
    """Some predictions, newest first."""

    previous: str | None = None
    next: str | None
    results: list[PredictionAnswer]


class VersionAnswer(BaseModel):
    """A model's one version."""

    id: str
    created_at: str = BEGINNING
    cog_version: str = "0"
    openapi_schema: dict[str, Any]


class VersionPage(BaseModel):
    """A model's versions: one."""

    previous: None = None
    next: None = None
    results: list[VersionAnswer]


class ReplicateModel(BaseModel):
    """A model."""

    url: str
    owner: str
    name: str
    description: str
    visibility: Literal["public"] = "public"
    github_url: None = None
    paper_url: None = None
    license_url: None = None
    run_count: int = 0
    cover_image_url: None = None
    default_example: None = None
    latest_version: VersionAnswer


class FileAnswer(BaseModel):
    """A kept file."""

    id: str
    name: str
    content_type: str
    size: int
    etag: str
    checksums: dict[str, str]
    metadata: dict[str, Any] = {}
    created_at: str
    expires_at: str | None
    urls: dict[str, str]


def prediction_of(
    job: JobRecord, items: list[ItemRecord], base: str, model: str, *, still: bool = False
) -> PredictionAnswer:
    """A job as a prediction.

    Args:
        job: As it stands.
        items: Its items.
        base: The server's root.
        model: The one that runs where the job names none.
        still: Say `starting` of one that has not ended: so clients are told that waiting took too long.
    """
    here = f"{base}/v1/predictions/{job.id}"
    name = job.params.get("model") or model
    links = [f"{base}/v1/jobs/{job.id}/results/{item.number}" for item in items if item.result]
    one = links[0] if links else None
    fault = next((item.error for item in items if item.error), None)
    return PredictionAnswer(
        id=job.id,
        model=f"{OWNER}/{name}",
        version=name,
        status="starting" if still and not job.status.ended else _STATUS[job.status],
        input=job.params,
        output=(one if job.counts.total == 1 else links) if job.status.ended else None,
        logs=_logs(items),
        error=None if fault is None or job.status is not JobStatus.FAILED else fault["detail"],
        metrics=_metrics(job),
        created_at=str(moment(job.created_at)),
        started_at=moment(job.started_at),
        completed_at=moment(job.finished_at),
        urls={"get": here, "cancel": f"{here}/cancel"},
    )


def _logs(items: list[ItemRecord]) -> str:
    """As tqdm would write it: clients read the last line."""
    total = sum(item.tiles_total for item in items)
    if not total:
        return ""
    done = sum(item.tiles_done for item in items)
    filled = _BAR_WIDTH * done // total
    return f"{100 * done // total:3d}%|{'#' * filled:{_BAR_WIDTH}}| {done}/{total}\n"


def _metrics(job: JobRecord) -> dict[str, float]:
    if job.started_at is None or job.finished_at is None:
        return {}
    return {
        "predict_time": job.finished_at - job.started_at,
        "total_time": job.finished_at - job.created_at,
    }


def version_of(model: ModelInfo) -> VersionAnswer:
    """A model's one version, and what it takes."""
    image = {"type": "string", "format": "uri", "description": "The picture."}
    given = {"type": "object", "properties": {"image": image, **parameter_schemas()}}
    output = {"type": "string", "format": "uri"}
    schemas = {"Input": given | {"required": ["image"]}, "Output": output}
    return VersionAnswer(id=model.name, openapi_schema={"components": {"schemas": schemas}})


def model_of(model: ModelInfo, owner: str, base: str) -> ReplicateModel:
    """A model in this dialect's words."""
    return ReplicateModel(
        url=f"{base}/v1/models/{owner}/{model.name}",
        owner=owner,
        name=model.name,
        description=model.description,
        latest_version=version_of(model),
    )
