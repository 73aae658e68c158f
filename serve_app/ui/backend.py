"""The one seam of the page: what it asks of whoever upscales, over HTTP or in this process.

Every picture of the page is an item of a job, so that a reload finds it again. It refuses to know Gradio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from serve_app.contracts import ModelInfo, Priority, UpscaleParams

ENDED = ("succeeded", "failed", "cancelled")


class Record(BaseModel):
    """A frozen record that passes over what the page does not need."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Offer(Record):
    """What can be asked for, the default model first."""

    models: tuple[ModelInfo, ...]
    presets: Mapping[str, UpscaleParams] = {}


class Plan(Record):
    """What a picture will cost; sizes in px, None where nobody knows."""

    model: str
    source_width: int
    source_height: int
    width: int
    height: int
    frames: int = 1
    tiles: int
    steps: int
    tflop: float | None = None
    estimated_s: float | None = None
    queue_position: int | None = None


class Result(Record):
    """A finished picture. `details` hold its report, parameters, timings and tiles."""

    media_type: str
    width: int
    height: int
    size_bytes: int = 0
    details: Mapping[str, Any] = {}


class Item(Record):
    """One picture of a job."""

    number: int
    name: str
    status: str
    tiles_done: int = 0
    tiles_total: int = 0
    error: Mapping[str, Any] | None = None
    result: Result | None = None


class Job(Record):
    """A job; `counts` has the number of items in each state, and `total`."""

    id: str
    status: str
    counts: Mapping[str, int] = Field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it unless a person asks."""
        return self.status in ENDED


class Told(Record):
    """One event of a job: `item.progress`, `item.preview`, `job.finished` and their like."""

    kind: str
    data: Mapping[str, Any] = {}


class Backend(Protocol):
    """Whoever upscales for the page. Every call raises errors of the tree.

    `tenant` is on whose behalf; jobs are found by the tenant that submitted them alone.
    """

    async def offer(self) -> Offer:
        """What can be asked for."""
        ...

    async def plan(self, picture: Path, params: UpscaleParams, tenant: str) -> Plan:
        """What a picture will cost; computes nothing."""
        ...

    async def submit(
        self, pictures: Sequence[Path], params: UpscaleParams, priority: Priority, tenant: str
    ) -> Job:
        """Takes pictures, and ZIPs of them, in as one job."""
        ...

    async def job(self, job_id: str, tenant: str) -> Job:
        """A job as it stands."""
        ...

    async def items(self, job_id: str, tenant: str) -> list[Item]:
        """A job's first thousand pictures, in order."""
        ...

    def follow(self, job_id: str, tenant: str) -> AsyncIterator[Told]:
        """A job's events from the first on; ends with the job."""
        ...

    async def preview(self, job_id: str, number: int, tenant: str) -> bytes | None:
        """A JPEG of a running picture's finished tiles, or None."""
        ...

    async def result(self, job_id: str, number: int, tenant: str, target: Path) -> None:
        """Writes one result's file."""
        ...

    async def archive(self, job_id: str, tenant: str, target: Path) -> None:
        """Writes all results that are there as a ZIP."""
        ...

    async def cancel(self, job_id: str, tenant: str) -> Job:
        """Gives a job up."""
        ...

    async def retry(self, job_id: str, tenant: str) -> Job:
        """Tries failed and cancelled pictures again."""
        ...
