"""A store that is away is waited for; one that refuses is not."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import exc

from serve_app.errors import LeaseLost
from serve_app.jobs import patience
from serve_app.jobs.patience import is_away, patiently

AWAY = [
    exc.OperationalError("SELECT 1", {}, Exception("starting up")),
    exc.InterfaceError("SELECT 1", {}, Exception("connection is closed")),
    exc.DBAPIError("SELECT 1", {}, Exception("terminating connection")),
    exc.TimeoutError("no connection became free"),
    ConnectionRefusedError(),
    OSError(28, "No space left on device"),
]
REFUSED = [
    exc.IntegrityError("INSERT", {}, Exception("twice")),
    exc.ProgrammingError("SELEC 1", {}, Exception("syntax")),
    exc.DataError("INSERT", {}, Exception("too long")),
    LeaseLost("somebody else's"),
    KeyError("a bug"),
]


@pytest.mark.parametrize("error", AWAY, ids=repr)
async def test_who_is_away_is_asked_again(error: Exception, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "TRY_S", 0)
    answers: list[Exception | None] = [error, error, None]

    async def say() -> str:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return "heard"

    assert await patiently(say) == "heard"
    assert answers == []


@pytest.mark.parametrize("error", REFUSED, ids=repr)
async def test_who_refuses_is_not(error: Exception):
    async def say() -> None:
        raise error

    assert not is_away(error)
    with pytest.raises(type(error)):
        await patiently(say)


async def test_who_was_asked_to_end_asks_no_more():
    async def say() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:  # as waiting for a connection may do
            raise OSError("the request got lost") from None

    waiting = asyncio.create_task(patiently(say))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
