"""The tables. Alembic's migrations make them; a test holds the two equal.

`held` is every reference to a blob, tile checkpoints among them: what no row of it names may be swept.
This module refuses to know what moves an item from state to state.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)

metadata = MetaData()

_QUEUED = text("status = 'queued'")
_RUNNING = text("status = 'running'")


def _index(name: str, where: TextClause, *columns: str) -> Index:
    """Of the rows in one state: an index that does not grow with what has ended."""
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


def _of_job() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE")


def _of_item() -> ForeignKeyConstraint:
    both = ["job_id", "number"]
    return ForeignKeyConstraint(both, ["items.job_id", "items.number"], ondelete="CASCADE")


tenants = Table(
    "tenants",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("jobs", Integer, nullable=False),  # not ended
    Column("queued", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("pixels", BigInteger, nullable=False),  # of items that have not ended
    Column("claimed_at", Float, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(30), primary_key=True),  # sorts by time of submission
    Column("tenant", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("priority", String(16), nullable=False),
    Column("params", JSON, nullable=False),
    Column("idempotency_key", String(255)),
    Column("digest", String(64), nullable=False),
    Column("webhook_url", Text),
    Column("request_id", String(200), nullable=False),
    Column("queued", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("succeeded", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("last_event", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("cancelled_at", Float),
    UniqueConstraint("tenant", "idempotency_key"),
    Index("jobs_of_tenant", "tenant", "id"),
    Index("jobs_by_end", "finished_at"),
)

items = Table(
    "items",
    metadata,
    Column("job_id", String(30), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("rank", Integer, nullable=False),  # of its job's priority: 0 first
    Column("name", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("params", JSON, nullable=False),
    Column("source", String(64)),
    Column("source_url", Text),
    Column("control_images", JSON, nullable=False),
    Column("pixels", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("tiles_done", Integer, nullable=False),
    Column("tiles_total", Integer, nullable=False),
    Column("available_at", Float, nullable=False),
    Column("queued_at", Float, nullable=False),
    Column("token", Integer, nullable=False),
    Column("runner", String(200)),
    Column("lease_until", Float),
    Column("result", JSON),
    Column("error", JSON),
    Column("started_at", Float),
    Column("finished_at", Float),
    _of_job(),
    _index("items_in_order", _QUEUED, "tenant", "rank", "job_id", "number"),
    _index("items_by_wait", _QUEUED, "queued_at"),
    _index("items_by_lease", _RUNNING, "lease_until"),
    Index("items_of_job", "job_id", "status", "number"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", String(30), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("token", Integer, primary_key=True),
    Column("runner", String(200), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("outcome", String(16)),  # the event that ended it
    Column("error", JSON),
    _of_item(),
)

held = Table(
    "held",
    metadata,
    Column("job_id", String(30), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("role", String(16), primary_key=True),  # source, control, tile, preview, result
    Column("key", String(120), primary_key=True),  # a control's name, a tile's key, or nothing
    Column("blob", String(64), nullable=False),
    _of_item(),
    Index("held_by_blob", "blob"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("touched_at", Float, nullable=False),
    Index("blobs_by_age", "touched_at"),
)

events = Table(
    "events",
    metadata,
    Column("job_id", String(30), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("at", Float, nullable=False),
    Column("data", JSON, nullable=False),
    _of_job(),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(30), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("data", JSON, nullable=False),
    Column("url", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("next_at", Float),
    Column("last_at", Float),
    Column("last_status", Integer),
    Column("last_error", Text),
    _of_job(),
    Index("deliveries_due", "status", "next_at"),
    Index("deliveries_of_job", "job_id"),
)

leaders = Table(
    "leaders",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("until", Float, nullable=False),
)

totals = Table(  # what is counted over all time
    "totals",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
