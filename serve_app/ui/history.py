"""This browser's jobs: a short list in its own storage, newest first. Pure functions.

It refuses to know how jobs get on; that is asked for when somebody looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

MOST = 30
PICTURE, BATCH = "picture", "batch"

Entry = Mapping[str, Any]


def added(
    history: object, job_id: str, kind: str, name: str, source: str = "", at: datetime | None = None
) -> list[Entry]:
    """The list with one more job.

    Args:
        history: As the browser has it.
        job_id: The job's.
        kind: `PICTURE` or `BATCH`.
        name: What a person knows it by.
        source: Where the upload lies, for the slider.
        at: When; now if absent.
    """
    moment = (at or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M")
    entry = {"id": job_id, "kind": kind, "name": name, "source": source, "at": moment}
    return [entry, *(e for e in entries(history) if e["id"] != job_id)][:MOST]


def entries(history: object) -> list[Entry]:
    """What can be used of what the browser had stored: it may be anything."""
    if not isinstance(history, Sequence) or isinstance(history, str):
        return []
    return [e for e in history if isinstance(e, Mapping) and isinstance(e.get("id"), str)]


def newest(history: object, kind: str) -> Entry | None:
    """The last job of a kind."""
    return next((e for e in entries(history) if e.get("kind") == kind), None)


def entry_of(history: object, job_id: str) -> Entry | None:
    """The job of an id."""
    return next((e for e in entries(history) if e["id"] == job_id), None)


def choices(history: object, states: Mapping[str, str]) -> list[tuple[str, str]]:
    """Labels and ids for a list to choose from."""
    return [
        (f"{e.get('name', '')} · {e.get('at', '')} UTC · {states.get(e['id'], 'gone')}", e["id"])
        for e in entries(history)
    ]
