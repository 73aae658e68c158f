"""What a runner keeps while it works: how far it is, its finished tiles, and a small picture of what is there.

All of it is refused where the lease has passed on.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.errors import LeaseLost
from serve_app.jobs.moves import Told, tell
from serve_app.jobs.part import Part
from serve_app.jobs.records import Json, Lease
from serve_app.jobs.schema import held, items, totals
from serve_app.jobs.states import ItemStatus


class Keeping(Part):
    """The store's side for a runner at work."""

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
            await write(connection, lease, values)
            facts = {
                "number": lease.item.number,
                "tiles_done": tiles_done,
                "tiles_total": tiles_total,
            }
            tale: list[Told] = [("item.progress", facts)]
            if preview is not None:
                await self._hold(connection, lease, "preview", "", preview)
                tale.append(("item.preview", {"number": lease.item.number, "blob": preview}))
            await tell(connection, lease.item.job_id, tale, now)

    async def checkpoint(self, lease: Lease, key: str, blob: str) -> None:
        """Keeps a finished tile under its key; raises LeaseLost."""
        async with self._database.write() as connection:
            await write(connection, lease, {"number": items.c.number})
            await self._hold(connection, lease, "tile", key, blob)

    async def checkpoints(self, lease: Lease) -> dict[str, str]:
        """The blobs of an item's tiles that were finished before, by their keys; raises LeaseLost."""
        mine = rows_of(held, lease) & (held.c.role == "tile")
        async with self._database.write() as connection:
            await write(connection, lease, {"number": items.c.number})
            rows = (await connection.execute(select(held.c.key, held.c.blob).where(mine))).all()
            if rows:
                await self._add(connection, "checkpoint_hits", len(rows))
        return {row.key: row.blob for row in rows}

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


async def write(connection: AsyncConnection, lease: Lease, values: Json) -> None:
    """Sets columns of an item that is still the lease's holder's; raises LeaseLost."""
    statement = update(items).where(held_by(lease)).values(**values)
    if (await connection.execute(statement)).rowcount == 0:
        raise lost(lease)


def mine(number: int, token: int) -> ColumnElement[bool]:
    """An item that is held under a token."""
    return and_(
        items.c.number == number, items.c.token == token, items.c.status == ItemStatus.RUNNING
    )


def held_by(lease: Lease) -> ColumnElement[bool]:
    """The item of a lease that still holds."""
    return (items.c.job_id == lease.item.job_id) & mine(lease.item.number, lease.token)


def rows_of(table: Any, lease: Lease) -> ColumnElement[bool]:
    """Rows of a table that belong to the lease's item."""
    found: ColumnElement[bool] = (table.c.job_id == lease.item.job_id) & (
        table.c.number == lease.item.number
    )
    return found


def lost(lease: Lease) -> LeaseLost:
    """What an older holder is told."""
    return LeaseLost(f"item {lease.item.number} of {lease.item.job_id} is somebody else's now")
