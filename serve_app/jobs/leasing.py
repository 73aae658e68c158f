"""How runners take items, keep them, and hand them in.

A lease ends by time. Its token grows with each, so that what an older holder still writes finds no row and is
refused: an item is computed at least once, and finished exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.errors import LeaseLost
from serve_app.jobs.moves import move, tell
from serve_app.jobs.part import Part, item_of
from serve_app.jobs.records import Heartbeat, Json, Lease, ResultRecord
from serve_app.jobs.schema import attempts, held, items, jobs, tenants, totals
from serve_app.jobs.states import ItemEvent, ItemStatus
from serve_app.params import Priority

_EXPIRED_AT_ONCE = 100


class Leasing(Part):
    """The store's side for runners."""

    async def claim(self, runner: str, lease_s: float, most: int) -> list[Lease]:
        """Takes items that wait: the tenant with the fewest running first, then priority, then age.

        Items whose lease ran out come back first; one that was tried as often as allowed is given up.

        Args:
            runner: Who takes them.
            lease_s: For how long, unless renewed.
            most: Items at most.
        """
        await self._expire()
        found: list[Lease] = []
        while len(found) < most and (lease := await self._claim_one(runner, lease_s)):
            found.append(lease)
        return found

    async def _claim_one(self, runner: str, lease_s: float) -> Lease | None:
        async with self._database.read() as connection:  # an idle runner takes no writer's place
            if not await _waiting(connection):
                return None
        now = self._clock()
        async with self._database.write() as connection:
            for tenant in await _waiting(connection):
                ready = and_(
                    items.c.status == ItemStatus.QUEUED,
                    items.c.tenant == tenant,
                    items.c.available_at <= now,
                )
                order = (items.c.rank, items.c.job_id, items.c.number)
                statement = (
                    select(items.c.job_id, items.c.number).where(ready).order_by(*order).limit(1)
                )
                if not self._database.is_sqlite:
                    statement = statement.with_for_update(skip_locked=True)
                if (row := (await connection.execute(statement)).one_or_none()) is not None:
                    return await _lease(connection, row.job_id, row.number, runner, now, lease_s)
        return None

    async def _expire(self) -> None:
        """Ends the leases that ran out, one by one, so that none waits for another's locks."""
        now = self._clock()
        late = and_(items.c.status == ItemStatus.RUNNING, items.c.lease_until < now)
        columns = (items.c.job_id, items.c.number, items.c.token, items.c.attempts, items.c.runner)
        async with self._database.read() as connection:
            statement = select(*columns).where(late).limit(_EXPIRED_AT_ONCE)
            rows = (await connection.execute(statement)).all()
        for row in rows:
            mine = _mine(row.number, row.token) & (items.c.lease_until < now)
            async with self._database.write() as connection:
                detail = f"its runner, {row.runner}, fell silent"
                again = row.attempts < self._most_attempts
                await self._end(
                    connection,
                    row.job_id,
                    mine,
                    _gave_up(detail, row.attempts),
                    again,
                    0,
                    ItemEvent.EXPIRE,
                )

    async def heartbeat(self, leases: Sequence[Lease], lease_s: float) -> Heartbeat:
        """Renews leases, and tells which are lost and whose items a caller cancelled."""
        lost: set[tuple[str, int]] = set()
        cancelled: set[tuple[str, int]] = set()
        until = self._clock() + lease_s
        async with self._database.write() as connection:
            for lease in sorted(leases, key=lambda lease: lease.key):
                where = _held_by(lease)
                statement = update(items).where(where).values(lease_until=until)
                if (await connection.execute(statement)).rowcount == 0:
                    lost.add(lease.key)
            names = {lease.item.job_id for lease in leases}
            given_up = jobs.c.id.in_(names) & jobs.c.cancelled_at.is_not(None)
            found = set((await connection.execute(select(jobs.c.id).where(given_up))).scalars())
            cancelled = {lease.key for lease in leases if lease.item.job_id in found} - lost
        return Heartbeat(lost, cancelled)

    async def progress(
        self, lease: Lease, tiles_done: int, tiles_total: int, preview: str | None = None
    ) -> None:
        """Writes down how far an item is, and tells the job's followers.

        Args:
            lease: Of the item.
            tiles_done: So far.
            tiles_total: Of the picture.
            preview: Blob of a small picture of what is there.

        Raises:
            LeaseLost: somebody else has the item now.
        """
        now = self._clock()
        async with self._database.write() as connection:
            values = {"tiles_done": tiles_done, "tiles_total": tiles_total}
            await _write(connection, lease, values)
            facts = {
                "number": lease.item.number,
                "tiles_done": tiles_done,
                "tiles_total": tiles_total,
            }
            tale: list[tuple[str, Json]] = [("item.progress", facts)]
            if preview is not None:
                await self._hold(connection, lease, "preview", "", preview)
                tale.append(("item.preview", {"number": lease.item.number, "blob": preview}))
            await tell(connection, lease.item.job_id, tale, now)

    async def checkpoint(self, lease: Lease, key: str, blob: str) -> None:
        """Keeps a finished tile under its key; raises LeaseLost."""
        async with self._database.write() as connection:
            await _write(connection, lease, {"number": items.c.number})
            await self._hold(connection, lease, "tile", key, blob)

    async def checkpoints(self, lease: Lease) -> dict[str, str]:
        """The blobs of an item's tiles that were finished before, by their keys; raises LeaseLost."""
        mine = _of(held, lease) & (held.c.role == "tile")
        async with self._database.write() as connection:
            await _write(connection, lease, {"number": items.c.number})
            rows = (await connection.execute(select(held.c.key, held.c.blob).where(mine))).all()
            if rows:
                await self._add(connection, "checkpoint_hits", len(rows))
        return {row.key: row.blob for row in rows}

    async def succeed(self, lease: Lease, result: ResultRecord) -> None:
        """Hands in a result; its blob is kept already. Raises LeaseLost."""
        now = self._clock()
        values = {"result": asdict(result), "error": None}
        told = {"width": result.width, "height": result.height, "size_bytes": result.size_bytes}
        async with self._database.write() as connection:
            await self._finish(
                connection, lease, ItemEvent.SUCCEED, values, ("item.succeeded", told), now
            )
            await connection.execute(
                held.delete().where(_of(held, lease) & held.c.role.in_(("tile", "preview")))
            )
            await self._hold(connection, lease, "result", "", result.blob)

    async def fail(self, lease: Lease, error: Json, retryable: bool, delay_s: float = 0) -> None:
        """Says that an item failed.

        Args:
            lease: Of the item.
            error: A problem's members, for the caller.
            retryable: Whether another try may mend it; it is given up after the last all the same.
            delay_s: Before the next try.

        Raises:
            LeaseLost: somebody else has the item now.
        """
        again = retryable and lease.item.attempts < self._most_attempts
        async with self._database.write() as connection:
            where = _mine(lease.item.number, lease.token)
            await self._end(
                connection, lease.item.job_id, where, error, again, delay_s, ItemEvent.REPEAT
            )

    async def release(self, lease: Lease, delay_s: float = 0) -> None:
        """Hands an item back unharmed; it counts as no attempt. Raises LeaseLost."""
        now = self._clock()
        event = ItemEvent.RELEASE
        async with self._database.write() as connection:
            event = await self._unless_cancelled(connection, lease.item.job_id, event)
            values: dict[str, Any] = {
                "attempts": items.c.attempts - 1,
                "available_at": now + delay_s,
            }
            told = ("item.cancelled", {}) if event is ItemEvent.CANCEL else None
            await self._finish(connection, lease, event, values, told, now)

    async def cancelled(self, lease: Lease) -> None:
        """Says that a cancelled item was stopped. Raises LeaseLost."""
        async with self._database.write() as connection:
            told = ("item.cancelled", {})
            await self._finish(connection, lease, ItemEvent.CANCEL, {}, told, self._clock())

    async def _finish(
        self,
        connection: AsyncConnection,
        lease: Lease,
        event: ItemEvent,
        values: Json,
        told: tuple[str, Json] | None,
        now: float,
    ) -> None:
        """One event to one leased item, and the end of its attempt."""
        where = _mine(lease.item.number, lease.token)
        if not await move(connection, event, lease.item.job_id, where, now, values, told):
            raise _lost(lease)
        await _end_attempt(
            connection, lease.item.job_id, lease.item.number, lease.token, event, None, now
        )

    async def _end(
        self,
        connection: AsyncConnection,
        job_id: str,
        where: ColumnElement[bool],
        error: Json,
        again: bool,
        delay_s: float,
        repeat: ItemEvent,
    ) -> None:
        """A failed attempt: another, or the end of the item."""
        now = self._clock()
        event = repeat if again else ItemEvent.FAIL
        event = await self._unless_cancelled(connection, job_id, event)
        values: dict[str, Any] = {"error": error, "available_at": now + delay_s}
        kinds = {ItemEvent.FAIL: "item.failed", ItemEvent.CANCEL: "item.cancelled"}
        told = (kinds.get(event, "item.retried"), {"error": error})
        moved = await move(connection, event, job_id, where, now, values, told)
        if not moved and repeat is not ItemEvent.EXPIRE:
            raise LeaseLost("this item is somebody else's now")
        for row in moved:
            await _end_attempt(connection, job_id, row["number"], row["token"], event, error, now)

    async def _unless_cancelled(
        self, connection: AsyncConnection, job_id: str, event: ItemEvent
    ) -> ItemEvent:
        """An item that would wait again is cancelled where its job was."""
        if event is ItemEvent.FAIL:
            return event
        row = (
            await connection.execute(select(jobs.c.cancelled_at).where(jobs.c.id == job_id))
        ).one()
        return event if row.cancelled_at is None else ItemEvent.CANCEL

    async def _hold(
        self, connection: AsyncConnection, lease: Lease, role: str, key: str, blob: str
    ) -> None:
        row = {"job_id": lease.item.job_id, "number": lease.item.number, "role": role, "key": key}
        statement = self._database.insert(held).values(row | {"blob": blob})
        await connection.execute(
            statement.on_conflict_do_update(index_elements=list(row), set_={"blob": blob})
        )

    async def _add(self, connection: AsyncConnection, name: str, count: int) -> None:
        statement = self._database.insert(totals).values(name=name, value=count)
        grown = {"value": totals.c.value + count}
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["name"], set_=grown)
        )


async def _waiting(connection: AsyncConnection) -> Sequence[str]:
    """The tenants that have items waiting, whose turn it is first."""
    order = (tenants.c.running, tenants.c.claimed_at, tenants.c.tenant)
    statement = select(tenants.c.tenant).where(tenants.c.queued > 0).order_by(*order)
    return (await connection.execute(statement)).scalars().all()


async def _lease(
    connection: AsyncConnection, job_id: str, number: int, runner: str, now: float, lease_s: float
) -> Lease:
    values = {"runner": runner, "lease_until": now + lease_s, "attempts": items.c.attempts + 1}
    told = ("item.started", {})
    rows = await move(
        connection, ItemEvent.CLAIM, job_id, items.c.number == number, now, values, told
    )
    row = rows[0]
    facts = {"job_id": job_id, "number": number, "token": row["token"], "runner": runner}
    await connection.execute(attempts.insert(), facts | {"started_at": now})
    await connection.execute(
        update(tenants).where(tenants.c.tenant == row["tenant"]).values(claimed_at=now)
    )
    chosen = select(jobs.c.priority).where(jobs.c.id == job_id)
    priority = Priority((await connection.execute(chosen)).scalar_one())
    return Lease(item_of(row), row["tenant"], priority, row["token"], runner, now + lease_s)


async def _write(connection: AsyncConnection, lease: Lease, values: Json) -> None:
    """Sets columns of an item that is still the lease's holder's; raises LeaseLost."""
    statement = update(items).where(_held_by(lease)).values(**values)
    if (await connection.execute(statement)).rowcount == 0:
        raise _lost(lease)


async def _end_attempt(
    connection: AsyncConnection,
    job_id: str,
    number: int,
    token: int,
    event: ItemEvent,
    error: Json | None,
    now: float,
) -> None:
    this = and_(attempts.c.job_id == job_id, attempts.c.number == number, attempts.c.token == token)
    values = {"ended_at": now, "outcome": event, "error": error}
    await connection.execute(update(attempts).where(this).values(**values))


def _mine(number: int, token: int) -> ColumnElement[bool]:
    return and_(
        items.c.number == number, items.c.token == token, items.c.status == ItemStatus.RUNNING
    )


def _held_by(lease: Lease) -> ColumnElement[bool]:
    return (items.c.job_id == lease.item.job_id) & _mine(lease.item.number, lease.token)


def _of(table: Any, lease: Lease) -> ColumnElement[bool]:
    return (table.c.job_id == lease.item.job_id) & (table.c.number == lease.item.number)


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"item {lease.item.number} of {lease.item.job_id} is somebody else's now")


def _gave_up(detail: str, tries: int) -> Json:
    said = f"attempt {tries} ended without a word: {detail}"
    return {"type": "runner-lost", "title": "Runner lost", "detail": said}
