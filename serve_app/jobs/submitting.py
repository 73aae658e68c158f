"""How jobs come into the store: whole, once, and within their tenant's quotas."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import RowMapping, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.errors import IdempotencyConflict, QuotaExceeded
from serve_app.jobs.moves import tell
from serve_app.jobs.part import RANKS, Part, job_of
from serve_app.jobs.records import JobRecord, NewItem, NewJob, Quotas, Usage
from serve_app.jobs.schema import held, items, jobs, tenants
from serve_app.jobs.states import ItemStatus, JobStatus

_CHUNK = 500  # rows of one INSERT
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letter passes for another


class Submitting(Part):
    """The store's side for those who bring jobs."""

    async def submit(
        self, job: NewJob, pictures: Sequence[NewItem], quotas: Quotas | None = None
    ) -> tuple[JobRecord, bool]:
        """Takes a job in, all of it or nothing.

        Args:
            job: What all of its items share.
            pictures: At least one; their blobs are kept already.
            quotas: What the tenant may have unfinished.

        Returns:
            The job, and whether it is new: one that was submitted before under its key is returned as it is.

        Raises:
            IdempotencyConflict: the key was used for another job.
            QuotaExceeded: it says what is left.
        """
        if not pictures:
            raise ValueError("a job has at least one item")
        try:
            return await self._submit(job, pictures, quotas or Quotas())
        except IntegrityError:  # another submission under the same key was a moment faster
            async with self._database.read() as connection:
                found = await _earlier(connection, job)
            if found is None:
                raise
            return found, False

    async def _submit(
        self, job: NewJob, pictures: Sequence[NewItem], quotas: Quotas
    ) -> tuple[JobRecord, bool]:
        now = self._clock()
        job_id = new_id(now)
        async with self._database.write() as connection:
            if (found := await _earlier(connection, job)) is not None:
                return found, False
            await self._take_room(connection, job, pictures, quotas)
            row = _job_row(job, job_id, len(pictures), now)
            await connection.execute(jobs.insert(), row)
            for chunk in _chunks(_item_rows(job, job_id, pictures, now)):
                await connection.execute(items.insert(), chunk)
            for chunk in _chunks(_held_rows(job_id, pictures)):
                await connection.execute(held.insert(), chunk)
            await tell(connection, job_id, [("job.created", {"items": len(pictures)})], now)
            made = (
                (await connection.execute(select(*jobs.c).where(jobs.c.id == job_id)))
                .mappings()
                .one()
            )
        return job_of(made), True

    async def _take_room(
        self, connection: AsyncConnection, job: NewJob, pictures: Sequence[NewItem], quotas: Quotas
    ) -> None:
        """Counts the job to its tenant; the tenant's row is held, so two submissions cannot both fit."""
        empty = {
            "tenant": job.tenant,
            "jobs": 0,
            "queued": 0,
            "running": 0,
            "pixels": 0,
            "claimed_at": 0.0,
        }
        await connection.execute(
            self._database.insert(tenants).values(empty).on_conflict_do_nothing()
        )
        pixels = sum(picture.pixels for picture in pictures)
        statement = (
            update(tenants)
            .where(tenants.c.tenant == job.tenant)
            .values(
                jobs=tenants.c.jobs + 1,
                queued=tenants.c.queued + len(pictures),
                pixels=tenants.c.pixels + pixels,
            )
            .returning(*tenants.c)
        )
        row = (await connection.execute(statement)).mappings().one()
        asked = Usage(1, len(pictures), pixels)
        _check("jobs", row["jobs"], asked.jobs, quotas.jobs)
        _check("items", row["queued"] + row["running"], asked.items, quotas.items)
        _check("pixels", row["pixels"], asked.pixels, quotas.pixels)

    async def usage(self, tenant: str) -> Usage:
        """What a tenant has unfinished."""
        async with self._database.read() as connection:
            row = await _tenant(connection, tenant)
        return Usage(row["jobs"], row["queued"] + row["running"], row["pixels"]) if row else Usage()


def new_id(now: float) -> str:
    """A job's name: 48 bits of milliseconds and 80 bits of chance, so that names sort by time."""
    number = int(now * 1000) << 80 | secrets.randbits(80)
    return "job_" + "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(26)))


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk


def _check(what: str, used: int, asked: int, allowed: int | None) -> None:
    if allowed is None or used <= allowed:
        return
    left = max(0, allowed - (used - asked))
    raise QuotaExceeded(
        f"{asked} {what} are asked for, and {left} of {allowed} unfinished {what} are left",
        allowed=f"at most {left} {what} now",
    )


async def _tenant(connection: AsyncConnection, tenant: str) -> RowMapping | None:
    statement = select(*tenants.c).where(tenants.c.tenant == tenant)
    return (await connection.execute(statement)).mappings().one_or_none()


async def _earlier(connection: AsyncConnection, job: NewJob) -> JobRecord | None:
    if job.idempotency_key is None:
        return None
    same = (jobs.c.tenant == job.tenant) & (jobs.c.idempotency_key == job.idempotency_key)
    row = (await connection.execute(select(*jobs.c).where(same))).mappings().one_or_none()
    if row is None:
        return None
    if row["digest"] != job.digest:
        raise IdempotencyConflict(
            "this Idempotency-Key was used for another job",
            allowed="the same request, or another key",
        )
    return job_of(row)


def _job_row(job: NewJob, job_id: str, count: int, now: float) -> dict[str, Any]:
    zeros = dict.fromkeys((status.value for status in ItemStatus), 0)
    return zeros | {
        "id": job_id,
        "tenant": job.tenant,
        "status": JobStatus.QUEUED,
        "priority": job.priority,
        "params": job.params,
        "idempotency_key": job.idempotency_key,
        "digest": job.digest,
        "webhook_url": job.webhook_url,
        "request_id": job.request_id,
        "queued": count,
        "last_event": 0,
        "created_at": now,
    }


def _item_rows(
    job: NewJob, job_id: str, pictures: Sequence[NewItem], now: float
) -> Iterator[dict[str, Any]]:
    for number, picture in enumerate(pictures):
        yield {
            "job_id": job_id,
            "number": number,
            "tenant": job.tenant,
            "rank": RANKS[job.priority],
            "name": picture.name,
            "status": ItemStatus.QUEUED,
            "params": picture.params,
            "source": picture.source,
            "source_url": picture.source_url,
            "control_images": picture.control_images,
            "pixels": picture.pixels,
            "attempts": 0,
            "tiles_done": 0,
            "tiles_total": 0,
            "available_at": now,
            "queued_at": now,
            "token": 0,
        }


def _held_rows(job_id: str, pictures: Sequence[NewItem]) -> Iterator[dict[str, Any]]:
    for number, picture in enumerate(pictures):
        if picture.source is not None:
            yield _held(job_id, number, "source", "", picture.source)
        for name, blob in picture.control_images.items():
            yield _held(job_id, number, "control", name, blob)


def _held(job_id: str, number: int, role: str, key: str, blob: str) -> dict[str, Any]:
    return {"job_id": job_id, "number": number, "role": role, "key": key, "blob": blob}
