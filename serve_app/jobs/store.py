"""The store: the one truth about jobs. Whoever dies, what it holds is where the others go on.

Each side of it is a file of its own; every change of an item goes through `moves.move`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from serve_app.jobs.database import Database
from serve_app.jobs.following import Following
from serve_app.jobs.housekeeping import Housekeeping
from serve_app.jobs.leasing import Leasing
from serve_app.jobs.outbox import Outbox
from serve_app.jobs.submitting import Submitting

MOST_ATTEMPTS = 3
"""Times that an item is tried; one that kills its runner as often is given up."""


class Store(Submitting, Following, Leasing, Housekeeping, Outbox):
    """Jobs, items, attempts, tile checkpoints, events and messages, in SQLite or PostgreSQL."""

    @classmethod
    async def open(
        cls, url: str, clock: Callable[[], float] = time.time, most_attempts: int = MOST_ATTEMPTS
    ) -> Self:
        """Opens a store, and makes or upgrades its tables.

        Args:
            url: See `database.Database`.
            clock: Seconds since 1970; runners' clocks may differ, tokens keep their writes apart.
            most_attempts: Times that an item is tried.

        Raises:
            ConfigurationError: if the URL cannot be used.
        """
        database = Database(url)
        await database.migrate()
        return cls(database, clock, most_attempts)

    async def close(self) -> None:
        """Closes its connections."""
        await self._database.close()
