"""Waits for a store or a disk that is away for a while: what is done must not be lost by it.

A database restarts, a network drops, a disk is full: each may mend itself. This module refuses to know what
is said to them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import exc

logger = logging.getLogger("tessera.jobs")

T = TypeVar("T")

TRY_S = 0.5
"""Seconds between two tries."""

_FOR_GOOD = (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError)


def is_away(error: BaseException) -> bool:
    """Whether an error says that a database or a disk cannot be used now, and nothing of what was said."""
    if isinstance(error, _FOR_GOOD):
        return False
    return isinstance(error, exc.DBAPIError | exc.TimeoutError | OSError)


def being_cancelled() -> bool:
    """Whether this task was asked to end: waiting for a connection can swallow the request (Python 3.11)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def patiently(say: Callable[[], Awaitable[T]]) -> T:
    """Says something to a store, and again for as long as it is away. Being cancelled ends it.

    What was said may have arrived although the answer did not, so it must bear being said twice.
    """
    while True:
        try:
            return await say()
        except Exception as error:
            if not is_away(error):
                raise
            if being_cancelled():
                raise asyncio.CancelledError from error
            logger.warning("jobs.store_away", extra={"cause": repr(error)})
        await asyncio.sleep(TRY_S)
