"""The one function that changes an item's state, and what follows from it within the same transaction.

Its item's row, its job's counters and state, its tenant's counters, the job's events and, at the job's end, the
message to the caller's webhook change together or not at all. Locks are taken in one order: items, job, tenant.
This module refuses to know who asks for a change, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.jobs.schema import deliveries, events, items, jobs, tenants
from serve_app.jobs.states import Counts, ItemEvent, ItemStatus, JobStatus, changes, job_status

Told = tuple[str, Mapping[str, Any]]
"""Kind and data of an event."""

_OPEN = (ItemStatus.QUEUED, ItemStatus.RUNNING)


async def move(
    connection: AsyncConnection,
    event: ItemEvent,
    job_id: str,
    where: ColumnElement[bool],
    now: float,
    values: Mapping[str, Any] | None = None,
    told: Told | None = None,
) -> list[RowMapping]:
    """Lets an event happen to items of one job.

    Args:
        connection: In a writing transaction.
        event: What happens.
        job_id: Whose items.
        where: Which of them; those in a state that the event does not act on stay as they are.
        now: The clock, s.
        values: Columns to set besides.
        told: Kind and data of the event to tell of each item; its `number` and `name` are added.

    Returns:
        The items that changed, as they are now.
    """
    moved: list[RowMapping] = []
    change = dict.fromkeys(ItemStatus, 0)
    pixels = 0
    for before, then in changes(event).items():
        chosen = (items.c.job_id == job_id) & (items.c.status == before) & where
        statement = (
            update(items).where(chosen).values(status=then, **_stamps(then, now), **values or {})
        )
        rows = (await connection.execute(statement.returning(*items.c))).mappings().all()
        moved += rows
        change[before] -= len(rows)
        change[then] += len(rows)
        pixels += sum(row["pixels"] for row in rows) * ((then in _OPEN) - (before in _OPEN))
    if not moved:
        return []
    moved.sort(key=lambda row: row["number"])
    tale = (
        [(told[0], {"number": r["number"], "name": r["name"], **told[1]}) for r in moved]
        if told
        else []
    )
    await _count(connection, job_id, change, pixels, tale, now)
    return moved


def _stamps(then: ItemStatus, now: float) -> dict[str, Any]:
    """What every arrival in a state sets, so that no caller can forget it."""
    if then is ItemStatus.RUNNING:
        return {"token": items.c.token + 1, "started_at": now, "finished_at": None, "error": None}
    cleared: dict[str, Any] = {"runner": None, "lease_until": None}
    if then is ItemStatus.QUEUED:
        return cleared | {"queued_at": now, "finished_at": None}
    return cleared | {"finished_at": now}


async def _count(
    connection: AsyncConnection,
    job_id: str,
    change: Mapping[ItemStatus, int],
    pixels: int,
    tale: Sequence[Told],
    now: float,
) -> None:
    counted = {
        status.value: jobs.c[status.value] + count for status, count in change.items() if count
    }
    statement = (
        update(jobs).where(jobs.c.id == job_id).values(**counted or {"queued": jobs.c.queued})
    )
    job = (await connection.execute(statement.returning(*jobs.c))).mappings().one()
    before = JobStatus(job["status"])
    counts = Counts(*(job[status.value] for status in ItemStatus))
    after = job_status(counts, job["cancelled_at"] is not None)
    ended, reopened = after.ended and not before.ended, before.ended and not after.ended
    await _count_tenant(connection, job["tenant"], change, pixels, reopened - ended)
    values: dict[str, Any] = {}
    if after is not before:
        values["status"] = after
    if job["started_at"] is None and change[ItemStatus.RUNNING] > 0:
        values["started_at"] = now
    if ended or reopened:
        values["finished_at"] = now if ended else None
    tale = list(tale)
    if ended:
        finished: Told = ("job.finished", {"status": after.value, "counts": asdict(counts)})
        tale.append(finished)
        if job["webhook_url"]:
            await announce(connection, job_id, finished, job["webhook_url"], now)
    await tell(connection, job_id, tale, now, values)


async def _count_tenant(
    connection: AsyncConnection,
    tenant: str,
    change: Mapping[ItemStatus, int],
    pixels: int,
    opened: int,
) -> None:
    values: dict[str, Any] = {
        status.value: tenants.c[status.value] + change[status] for status in _OPEN if change[status]
    }
    if pixels:
        values["pixels"] = tenants.c.pixels + pixels
    if opened:
        values["jobs"] = tenants.c.jobs + opened
    if values:
        await connection.execute(update(tenants).where(tenants.c.tenant == tenant).values(**values))


async def tell(
    connection: AsyncConnection,
    job_id: str,
    tale: Sequence[Told],
    now: float,
    values: Mapping[str, Any] | None = None,
) -> None:
    """Appends events to a job, and sets columns of it besides.

    The sequence has no gap and its order is that of the commits: the job's row is locked until the end.
    """
    if not tale and not values:
        return
    statement = (
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(last_event=jobs.c.last_event + len(tale), **values or {})
    )
    last = (await connection.execute(statement.returning(jobs.c.last_event))).scalar_one()
    if tale:
        first = last - len(tale) + 1
        rows = [
            {
                "job_id": job_id,
                "sequence": first + place,
                "kind": kind,
                "at": now,
                "data": dict(data),
            }
            for place, (kind, data) in enumerate(tale)
        ]
        await connection.execute(events.insert(), rows)


async def announce(
    connection: AsyncConnection, job_id: str, told: Told, url: str, now: float
) -> None:
    """Writes down that a webhook is to be told, in the transaction of what it is told of."""
    kind, data = told
    row = {"job_id": job_id, "kind": kind, "data": dict(data), "url": url, "status": "pending"}
    times = {"attempts": 0, "created_at": now, "next_at": now}
    await connection.execute(deliveries.insert(), row | times)
