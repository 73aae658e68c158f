"""The engine under the store: SQLite in a file, or PostgreSQL; reading and writing transactions; migrations.

SQLite is one file that many processes write to: a write-ahead log, writers that ask for their place at once
instead of half-way (`BEGIN IMMEDIATE`), and a sync at every commit, so that a power cut loses nothing that was
accepted. This module refuses to know tables and their meaning.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Insert, Table, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from serve_app.errors import ConfigurationError

_BUSY_MS = 30_000  # a writer waits so long for the others
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_MIGRATION_LOCK = 0x7E55E2A  # any number that nobody else takes for an advisory lock


class Database:
    """Connections to one database.

    Args:
        url: `sqlite:///folder/jobs.db` or `postgresql://user:password@host/name`.

    Raises:
        ConfigurationError: if the URL is of neither kind.
    """

    def __init__(self, url: str) -> None:
        try:
            found = make_url(url)
        except ArgumentError:
            raise ConfigurationError("jobs.database_url: not a database's URL") from None
        kind = found.get_backend_name()
        if kind not in _DRIVERS or (kind == "sqlite" and not found.database):
            allowed = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
            detail = f"jobs.database_url: {kind!r} without a file, or of an unknown kind"
            raise ConfigurationError(detail, field="jobs.database_url", allowed=allowed)
        self.is_sqlite = kind == "sqlite"
        found = found.set(drivername=_DRIVERS[kind])
        if self.is_sqlite and found.database:
            Path(found.database).parent.mkdir(parents=True, exist_ok=True)
        self._engine = _sqlite(found) if self.is_sqlite else _postgresql(found)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads, of one moment."""
        async with self._engine.connect() as connection:
            await connection.execution_options(tessera_writes=False)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes; all of it or nothing."""
        async with self._engine.connect() as connection:
            await connection.execution_options(tessera_writes=True)
            async with connection.begin():
                yield connection

    def insert(self, table: Table) -> Any:
        """An `INSERT` that knows `ON CONFLICT`, which both databases spell alike."""
        made: Insert = sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)
        return made

    async def migrate(self) -> None:
        """Brings the tables to this version; processes that start together wait for the first."""
        async with self.write() as connection:
            if not self.is_sqlite:
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            await connection.run_sync(_upgrade)

    async def close(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _postgresql(url: Any) -> AsyncEngine:
    # a server that came back after a restart is found out before a statement, not by it
    return create_async_engine(url, pool_size=5, max_overflow=5, pool_pre_ping=True)


def _sqlite(url: Any) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=3, max_overflow=2, connect_args={"timeout": _BUSY_MS / 1000}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("tessera_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
