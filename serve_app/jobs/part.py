"""What the store's parts share: the database, the clock, and how rows become records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import RowMapping

from serve_app.choices import Priority
from serve_app.jobs.database import Database
from serve_app.jobs.records import ItemRecord, JobRecord, ResultRecord
from serve_app.jobs.states import Counts, ItemStatus, JobStatus

_OF_JOB = (
    *("id", "tenant", "params", "created_at", "started_at", "finished_at"),
    *("idempotency_key", "webhook_url", "last_event"),
)
_OF_ITEM = (
    *("job_id", "number", "name", "params", "source", "source_url", "control_images", "pixels"),
    *("attempts", "tiles_done", "tiles_total", "error", "started_at", "finished_at"),
)

RANKS = {Priority.INTERACTIVE: 0, Priority.BATCH: 1}


class Part:
    """One side of the store.

    Args:
        database: Where the tables are.
        clock: Seconds since 1970.
        most_attempts: After so many an item is given up.
    """

    def __init__(self, database: Database, clock: Callable[[], float], most_attempts: int) -> None:
        self._database = database
        self._clock = clock
        self._most_attempts = most_attempts


def job_of(row: RowMapping) -> JobRecord:
    """A row of `jobs` as a record."""
    facts: dict[str, Any] = {name: row[name] for name in _OF_JOB}
    counts = Counts(*(row[status.value] for status in ItemStatus))
    return JobRecord(
        status=JobStatus(row["status"]), priority=Priority(row["priority"]), counts=counts, **facts
    )


def item_of(row: RowMapping) -> ItemRecord:
    """A row of `items` as a record."""
    facts: dict[str, Any] = {name: row[name] for name in _OF_ITEM}
    result = ResultRecord(**row["result"]) if row["result"] else None
    return ItemRecord(status=ItemStatus(row["status"]), result=result, **facts)
