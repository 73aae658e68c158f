"""How runners take items, keep them, and hand them in.

A lease ends by time. Its token grows with each, so that what an older holder still writes finds no row and is
refused: an item is computed at least once, and finished exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.choices import Priority
from serve_app.jobs.ending import Ending
from serve_app.jobs.keeping import held_by, mine
from serve_app.jobs.moves import Told, move
from serve_app.jobs.part import item_of
from serve_app.jobs.records import Heartbeat, Json, Lease
from serve_app.jobs.schema import attempts, items, jobs, tenants
from serve_app.jobs.states import ItemEvent, ItemStatus

_EXPIRED_AT_ONCE = 100


class Leasing(Ending):
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
            silent = mine(row.number, row.token) & (items.c.lease_until < now)
            async with self._database.write() as connection:
                detail = f"its runner, {row.runner}, fell silent"
                again = row.attempts < self._most_attempts
                await self._end(
                    connection,
                    row.job_id,
                    silent,
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
                where = held_by(lease)
                statement = update(items).where(where).values(lease_until=until)
                if (await connection.execute(statement)).rowcount == 0:
                    lost.add(lease.key)
            names = {lease.item.job_id for lease in leases}
            given_up = jobs.c.id.in_(names) & jobs.c.cancelled_at.is_not(None)
            found = set((await connection.execute(select(jobs.c.id).where(given_up))).scalars())
            cancelled = {lease.key for lease in leases if lease.item.job_id in found} - lost
        return Heartbeat(lost, cancelled)


async def _waiting(connection: AsyncConnection) -> Sequence[str]:
    """The tenants that have items waiting, whose turn it is first."""
    order = (tenants.c.running, tenants.c.claimed_at, tenants.c.tenant)
    statement = select(tenants.c.tenant).where(tenants.c.queued > 0).order_by(*order)
    return (await connection.execute(statement)).scalars().all()


async def _lease(
    connection: AsyncConnection, job_id: str, number: int, runner: str, now: float, lease_s: float
) -> Lease:
    values = {"runner": runner, "lease_until": now + lease_s, "attempts": items.c.attempts + 1}
    told: Told = ("item.started", {})
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


def _gave_up(detail: str, tries: int) -> Json:
    said = f"attempt {tries} ended without a word: {detail}"
    return {"type": "runner-lost", "title": "Runner lost", "detail": said}
