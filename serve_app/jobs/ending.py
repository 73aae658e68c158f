"""How an item leaves its runner: done, failed, handed back or cancelled; and how its attempt is closed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.errors import LeaseLost
from serve_app.jobs.keeping import Keeping, lost, mine, rows_of
from serve_app.jobs.moves import Told, move
from serve_app.jobs.records import Json, Lease, ResultRecord
from serve_app.jobs.schema import attempts, held, items, jobs
from serve_app.jobs.states import ItemEvent


class Ending(Keeping):
    """The store's side for a runner that is through with an item."""

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
                held.delete().where(rows_of(held, lease) & held.c.role.in_(("tile", "preview")))
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
            where = mine(lease.item.number, lease.token)
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
            told: Told | None = ("item.cancelled", {}) if event is ItemEvent.CANCEL else None
            await self._finish(connection, lease, event, values, told, now)

    async def cancelled(self, lease: Lease) -> None:
        """Says that a cancelled item was stopped. Raises LeaseLost."""
        async with self._database.write() as connection:
            told: Told = ("item.cancelled", {})
            await self._finish(connection, lease, ItemEvent.CANCEL, {}, told, self._clock())

    async def _finish(
        self,
        connection: AsyncConnection,
        lease: Lease,
        event: ItemEvent,
        values: Json,
        told: Told | None,
        now: float,
    ) -> None:
        """One event to one leased item, and the end of its attempt."""
        where = mine(lease.item.number, lease.token)
        if not await move(connection, event, lease.item.job_id, where, now, values, told):
            raise lost(lease)
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
        told: Told = (kinds.get(event, "item.retried"), {"error": error})
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
