"""What the store knows of blobs and of age: which may go, and who is the one to look after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import ColumnElement, and_, delete, exists, func, select, update

from serve_app.jobs.part import Part
from serve_app.jobs.schema import blobs, held, jobs, leaders


class Housekeeping(Part):
    """The store's side for sweepers."""

    async def touch_blob(self, name: str, size_bytes: int) -> None:
        """Says that a blob is there and was just wanted: it is not swept for a while."""
        now = self._clock()
        statement = self._database.insert(blobs).values(
            name=name, size_bytes=size_bytes, touched_at=now
        )
        renewed = {"touched_at": now, "size_bytes": size_bytes}
        async with self._database.write() as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["name"], set_=renewed)
            )

    async def unreferenced_blobs(self, older_than_s: float, limit: int = 1000) -> list[str]:
        """Blobs that nothing holds and nobody wanted for so long."""
        statement = select(blobs.c.name).where(_loose(self._clock() - older_than_s)).limit(limit)
        async with self._database.read() as connection:
            return list((await connection.execute(statement)).scalars())

    async def forget_blob(
        self, name: str, older_than_s: float, remove: Callable[[str], Awaitable[None]]
    ) -> bool:
        """Forgets a blob, and removes its file, unless it is held or wanted meanwhile.

        Both happen in one transaction: who wants the blob again waits for it, and then writes it anew.

        Args:
            name: Of the blob.
            older_than_s: Nobody wanted it for so long.
            remove: Removes its file.
        """
        statement = delete(blobs).where(
            (blobs.c.name == name) & _loose(self._clock() - older_than_s)
        )
        async with self._database.write() as connection:
            if not (await connection.execute(statement)).rowcount:
                return False
            await remove(name)
            return True

    async def adopt_blobs(self, found: Sequence[tuple[str, int, float]]) -> int:
        """Makes rows for files that have none, so that they are swept as all others are.

        Args:
            found: Name, bytes, and the time it was written, of each.

        Returns:
            How many had none.
        """
        rows = [dict(zip(("name", "size_bytes", "touched_at"), one, strict=True)) for one in found]
        if not rows:
            return 0
        statement = self._database.insert(blobs).values(rows).on_conflict_do_nothing()
        async with self._database.write() as connection:
            return int((await connection.execute(statement)).rowcount)

    async def blob_bytes(self) -> int:
        """Bytes of all blobs together."""
        async with self._database.read() as connection:
            return int(
                (
                    await connection.execute(select(func.coalesce(func.sum(blobs.c.size_bytes), 0)))
                ).scalar_one()
            )

    async def held_blobs(self) -> set[str]:
        """The names of all blobs that jobs hold."""
        async with self._database.read() as connection:
            return set((await connection.execute(select(held.c.blob).distinct())).scalars())

    async def held_bytes(self) -> int:
        """Bytes of the blobs that jobs hold, each counted once."""
        wanted = exists().where(held.c.blob == blobs.c.name)
        total = select(func.coalesce(func.sum(blobs.c.size_bytes), 0)).where(wanted)
        async with self._database.read() as connection:
            return int((await connection.execute(total)).scalar_one())

    async def ended_jobs(self, older_than_s: float, limit: int = 100) -> list[str]:
        """Jobs that ended longer ago, the oldest first."""
        old = and_(
            jobs.c.finished_at.is_not(None), jobs.c.finished_at <= self._clock() - older_than_s
        )
        statement = select(jobs.c.id).where(old).order_by(jobs.c.finished_at).limit(limit)
        async with self._database.read() as connection:
            return list((await connection.execute(statement)).scalars())

    async def delete_job(self, job_id: str) -> bool:
        """Forgets an ended job and all that belongs to it; its blobs are loose from then on."""
        statement = delete(jobs).where((jobs.c.id == job_id) & jobs.c.finished_at.is_not(None))
        async with self._database.write() as connection:
            return bool((await connection.execute(statement)).rowcount)

    async def lead(self, name: str, holder: str, lease_s: float) -> bool:
        """Asks to be the one who does a thing; True for one holder at a time.

        Args:
            name: Of the thing.
            holder: Who asks.
            lease_s: For how long.
        """
        now = self._clock()
        mine = {"holder": holder, "until": now + lease_s}
        statement = (
            self._database.insert(leaders).values(name=name, **mine).on_conflict_do_nothing()
        )
        free = (leaders.c.holder == holder) | (leaders.c.until < now)
        async with self._database.write() as connection:
            await connection.execute(statement)
            taken = update(leaders).where((leaders.c.name == name) & free).values(**mine)
            return bool((await connection.execute(taken)).rowcount)


def _loose(touched_before: float) -> ColumnElement[bool]:
    return and_(blobs.c.touched_at <= touched_before, ~exists().where(held.c.blob == blobs.c.name))
