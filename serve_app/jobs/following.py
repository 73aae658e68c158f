"""How callers find their jobs, follow them, give them up, and have them tried again."""

from __future__ import annotations

from sqlalchemy import and_, func, select, true, update

from serve_app.errors import NotFound
from serve_app.jobs.moves import Told, move, tell
from serve_app.jobs.part import Part, item_of, job_of
from serve_app.jobs.records import Event, ItemRecord, JobRecord, Page, StoreCounts
from serve_app.jobs.schema import attempts, deliveries, events, held, items, jobs, tenants, totals
from serve_app.jobs.states import ItemEvent, ItemStatus, JobStatus, job_status


class Following(Part):
    """The store's side for those who wait for jobs."""

    async def job(self, job_id: str, tenant: str | None = None) -> JobRecord:
        """A job as it stands; another tenant's is not found."""
        async with self._database.read() as connection:
            row = (
                (await connection.execute(select(*jobs.c).where(jobs.c.id == job_id)))
                .mappings()
                .one_or_none()
            )
        if row is None or (tenant is not None and row["tenant"] != tenant):
            raise NotFound(f"there is no job {job_id!r}")
        return job_of(row)

    async def jobs(
        self,
        tenant: str,
        status: JobStatus | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """A tenant's jobs, newest first.

        Args:
            tenant: Whose.
            status: Only those.
            cursor: `next_cursor` of the page before.
            limit: Jobs of a page.
        """
        chosen = and_(
            jobs.c.tenant == tenant,
            true() if status is None else jobs.c.status == status,
            true() if cursor is None else jobs.c.id < cursor,
        )
        statement = select(*jobs.c).where(chosen).order_by(jobs.c.id.desc()).limit(limit + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        found = [job_of(row) for row in rows[:limit]]
        return Page(found, found[-1].id if len(rows) > limit else None)

    async def items(
        self, job_id: str, status: ItemStatus | None = None, after: int = -1, limit: int = 100
    ) -> list[ItemRecord]:
        """Items of a job in order, from the one after `after`."""
        chosen = and_(
            items.c.job_id == job_id,
            items.c.number > after,
            true() if status is None else items.c.status == status,
        )
        statement = select(*items.c).where(chosen).order_by(items.c.number).limit(limit)
        async with self._database.read() as connection:
            return [item_of(row) for row in (await connection.execute(statement)).mappings()]

    async def item(self, job_id: str, number: int) -> ItemRecord:
        """One item; raises NotFound."""
        found = await self.items(job_id, after=number - 1, limit=1)
        if not found or found[0].number != number:
            raise NotFound(f"the job {job_id!r} has no item {number}")
        return found[0]

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """What happened in a job after a sequence number, in order and without a gap."""
        chosen = and_(events.c.job_id == job_id, events.c.sequence > after)
        statement = select(*events.c).where(chosen).order_by(events.c.sequence).limit(limit)
        async with self._database.read() as connection:
            return [Event(**row) for row in (await connection.execute(statement)).mappings()]

    async def preview(self, job_id: str, number: int) -> str | None:
        """Blob of the small picture of a running item, if there is one."""
        chosen = and_(held.c.job_id == job_id, held.c.number == number, held.c.role == "preview")
        async with self._database.read() as connection:
            found: str | None = (
                await connection.execute(select(held.c.blob).where(chosen))
            ).scalar_one_or_none()
        return found

    async def cancel(self, job_id: str, tenant: str | None = None) -> JobRecord:
        """Gives a job up: what waits at once, what runs when its runner hears of it. Raises NotFound."""
        now = self._clock()
        found = await self.job(job_id, tenant)
        if found.status.ended:
            return found
        async with self._database.write() as connection:
            waiting = items.c.status == ItemStatus.QUEUED
            # the item's rows before the job's: see `moves`
            locked = select(items.c.number).where((items.c.job_id == job_id) & waiting)
            if not self._database.is_sqlite:
                await connection.execute(locked.order_by(items.c.number).with_for_update())
            mark = update(jobs).where((jobs.c.id == job_id) & jobs.c.finished_at.is_(None))
            marked = await connection.execute(
                mark.values(cancelled_at=now).returning(jobs.c.running)
            )
            running = marked.scalar_one_or_none()
            if running is not None:
                told: Told = ("item.cancelled", {})
                moved = await move(connection, ItemEvent.CANCEL, job_id, waiting, now, None, told)
                if not moved and running:
                    await tell(connection, job_id, [], now, {"status": JobStatus.CANCELLING})
        return await self.job(job_id, tenant)

    async def retry(self, job_id: str, tenant: str | None = None) -> JobRecord:
        """Has a job's failed and cancelled items tried again, from their first attempt. Raises NotFound."""
        now = self._clock()
        await self.job(job_id, tenant)
        async with self._database.write() as connection:
            over = items.c.status.in_((ItemStatus.FAILED, ItemStatus.CANCELLED)) & (
                items.c.job_id == job_id
            )
            if not self._database.is_sqlite:
                chosen = select(items.c.number).where(over).order_by(items.c.number)
                await connection.execute(chosen.with_for_update())
            mark = update(jobs).where(jobs.c.id == job_id).values(cancelled_at=None)
            job = (await connection.execute(mark.returning(*jobs.c))).mappings().one()
            values = {"attempts": 0, "available_at": now, "error": None, "tiles_done": 0}
            told: Told = ("item.retried", {})
            whole = items.c.job_id == job_id
            moved = await move(connection, ItemEvent.REVIVE, job_id, whole, now, values, told)
            if not moved and job["status"] == JobStatus.CANCELLING:  # what runs goes on
                status = job_status(job_of(job).counts, cancelling=False)
                await tell(connection, job_id, [], now, {"status": status})
        return await self.job(job_id, tenant)

    async def waiting(self) -> int:
        """Items that wait, of all tenants."""
        total = select(func.coalesce(func.sum(tenants.c.queued), 0))
        async with self._database.read() as connection:
            return int((await connection.execute(total)).scalar_one())

    async def counts(self) -> StoreCounts:
        """What an operator sees, the same from every process."""
        async with self._database.read() as connection:

            async def by_status(table: object, column: object) -> dict[str, int]:
                statement = select(column, func.count()).select_from(table).group_by(column)  # type: ignore[call-overload]
                return dict((await connection.execute(statement)).all())

            waiting = items.c.status == ItemStatus.QUEUED
            oldest = (
                await connection.execute(select(func.min(items.c.queued_at)).where(waiting))
            ).scalar_one()
            hits = select(totals.c.value).where(totals.c.name == "checkpoint_hits")
            return StoreCounts(
                items={status.value: 0 for status in ItemStatus}
                | await by_status(items, items.c.status),
                jobs={status.value: 0 for status in JobStatus}
                | await by_status(jobs, jobs.c.status),
                deliveries=dict.fromkeys(("pending", "delivered", "failed"), 0)
                | await by_status(deliveries, deliveries.c.status),
                oldest_queued_s=max(0.0, self._clock() - oldest) if oldest is not None else 0.0,
                attempts=(
                    await connection.execute(select(func.count()).select_from(attempts))
                ).scalar_one(),
                checkpoint_hits=(await connection.execute(hits)).scalar_one_or_none() or 0,
            )
