"""What the store hands out and takes in: plain, frozen records.

Times are seconds since 1970 (UTC), as the store's clock gives them. A blob is named by the SHA-256 of its
bytes, in hex. This module refuses to know tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from serve_app.choices import Priority
from serve_app.jobs.states import Counts, ItemStatus, JobStatus

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it is submitted.

    Attributes:
        tenant: On whose behalf.
        params: `UpscaleParams` of the whole job, as JSON.
        priority: Of all of its tiles.
        idempotency_key: Submitted twice under one key, it is one job.
        digest: Of all that was submitted; tells a repetition from another job under the same key.
        webhook_url: Told when the job has ended.
        request_id: Of the request that brought it.
    """

    tenant: str
    params: Json = field(default_factory=dict)
    priority: Priority = Priority.BATCH
    idempotency_key: str | None = None
    digest: str = ""
    webhook_url: str | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class NewItem:
    """One picture as it is submitted: by a blob or by its address.

    Attributes:
        name: The file's name, for the caller.
        params: Complete `UpscaleParams` as JSON, the seed drawn: whoever runs it makes the same bytes.
        source: Blob of the encoded picture, or None where `source_url` says where it lies.
        source_url: Where the runner fetches it.
        control_images: Blobs of the caller's control pictures, by the control's name.
        pixels: Of the result as planned; 0 where that is not known yet.
    """

    name: str
    params: Json
    source: str | None = None
    source_url: str | None = None
    control_images: dict[str, str] = field(default_factory=dict)
    pixels: int = 0


@dataclass(frozen=True, slots=True)
class Quotas:
    """What one tenant may have unfinished at once; None is no bound.

    Attributes:
        jobs: Jobs that have not ended.
        items: Their items that have not ended.
        pixels: Pixels of those items' results.
    """

    jobs: int | None = None
    items: int | None = None
    pixels: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one tenant has unfinished; see `Quotas`."""

    jobs: int = 0
    items: int = 0
    pixels: int = 0


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it stands."""

    id: str
    tenant: str
    status: JobStatus
    priority: Priority
    params: Json
    counts: Counts
    created_at: float
    started_at: float | None
    finished_at: float | None
    idempotency_key: str | None
    webhook_url: str | None
    last_event: int


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """A finished picture.

    Attributes:
        blob: The encoded file.
        media_type: Of it.
        width: px.
        height: px.
        size_bytes: Of the file.
        details: Report, resolved parameters, timings and tiles, as JSON.
    """

    blob: str
    media_type: str
    width: int
    height: int
    size_bytes: int
    details: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """An item as it stands. `number` counts from 0 in its job; `error` is a problem's members."""

    job_id: str
    number: int
    name: str
    status: ItemStatus
    params: Json
    source: str | None
    source_url: str | None
    control_images: dict[str, str]
    pixels: int
    attempts: int
    tiles_done: int
    tiles_total: int
    result: ResultRecord | None
    error: Json | None
    started_at: float | None
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A runner's right to an item, until `until`.

    Attributes:
        item: What to do.
        tenant: Of its job.
        priority: Of its job.
        token: Grows with each lease of the item; what an older holder writes is refused.
        runner: Who holds it.
        until: When it runs out unless renewed.
    """

    item: ItemRecord
    tenant: str
    priority: Priority
    token: int
    runner: str
    until: float

    @property
    def key(self) -> tuple[str, int]:
        """Names the item: its job and its number."""
        return self.item.job_id, self.item.number


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a runner hears when it renews its leases: items that are no longer its own, and cancelled ones."""

    lost: set[tuple[str, int]]
    cancelled: set[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a job; `sequence` counts from 1 without a gap."""

    job_id: str
    sequence: int
    kind: str
    at: float
    data: Json


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and where the next ones begin."""

    jobs: list[JobRecord]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to a caller's webhook. `status` is pending, delivered or failed."""

    id: int
    job_id: str
    kind: str
    data: Json
    url: str
    status: str
    attempts: int
    created_at: float
    next_at: float | None
    last_at: float | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """What an operator sees of the store, the same from whichever process reads it."""

    items: dict[str, int]
    jobs: dict[str, int]
    deliveries: dict[str, int]
    oldest_queued_s: float
    attempts: int
    checkpoint_hits: int
