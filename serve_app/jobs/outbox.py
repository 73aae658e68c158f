"""The messages to webhooks: which are due, and what became of them."""

from __future__ import annotations

from sqlalchemy import RowMapping, and_, select, update

from serve_app.errors import NotFound
from serve_app.jobs.part import Part
from serve_app.jobs.records import Delivery
from serve_app.jobs.schema import deliveries


class Outbox(Part):
    """The store's side for whoever tells webhooks."""

    async def due_deliveries(self, limit: int = 100) -> list[Delivery]:
        """Messages whose time has come, the longest due first."""
        due = and_(deliveries.c.status == "pending", deliveries.c.next_at <= self._clock())
        statement = select(*deliveries.c).where(due).order_by(deliveries.c.next_at).limit(limit)
        async with self._database.read() as connection:
            return [_delivery(row) for row in (await connection.execute(statement)).mappings()]

    async def delivered(self, delivery_id: int, http_status: int) -> None:
        """A message was taken."""
        await self._note(delivery_id, "delivered", None, http_status, None)

    async def undelivered(
        self, delivery_id: int, error: str, next_at: float | None, http_status: int | None = None
    ) -> None:
        """A message was not taken; it is tried again at `next_at`, or given up where that is None."""
        await self._note(
            delivery_id, "pending" if next_at is not None else "failed", next_at, http_status, error
        )

    async def _note(
        self,
        delivery_id: int,
        status: str,
        next_at: float | None,
        http_status: int | None,
        error: str | None,
    ) -> None:
        values = {
            "status": status,
            "next_at": next_at,
            "last_status": http_status,
            "last_error": error,
        }
        statement = update(deliveries).where(deliveries.c.id == delivery_id)
        statement = statement.values(
            attempts=deliveries.c.attempts + 1, last_at=self._clock(), **values
        )
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """All messages about a job, oldest first."""
        statement = (
            select(*deliveries.c).where(deliveries.c.job_id == job_id).order_by(deliveries.c.id)
        )
        async with self._database.read() as connection:
            return [_delivery(row) for row in (await connection.execute(statement)).mappings()]

    async def redeliver(self, job_id: str, delivery_id: int) -> Delivery:
        """Has a message sent again, from its first attempt; raises NotFound."""
        this = and_(deliveries.c.id == delivery_id, deliveries.c.job_id == job_id)
        values = {"status": "pending", "attempts": 0, "next_at": self._clock()}
        statement = update(deliveries).where(this).values(**values).returning(*deliveries.c)
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"the job {job_id!r} has no delivery {delivery_id}")
        return _delivery(row)


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(**row)
