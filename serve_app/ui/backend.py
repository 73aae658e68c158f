"""The one seam of the page: what it asks of whoever upscales, over HTTP or in this process.

Every picture of the page is an item of a job, so that a reload finds it again. It refuses to know Gradio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from serve_app.client.records import ENDED, Item, Job, Offer, Plan, Record, Result
from serve_app.contracts import Priority, UpscaleParams

__all__ = ["ENDED", "Backend", "Item", "Job", "Offer", "Plan", "Result", "Told"]


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
