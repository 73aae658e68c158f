import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from serve_app.api.presence import while_connected


class Line:
    """An ASGI receive channel that is told when the client leaves."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.listening = 0

    async def receive(self) -> Message:
        self.listening += 1
        try:
            await self.gone.wait()
        finally:
            self.listening -= 1
        return {"type": "http.disconnect"}


class Work:
    def __init__(self) -> None:
        self.state = "new"

    async def run(self) -> None:
        self.state = "running"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # clearing up takes a while
            self.state = "cancelled"
            raise


async def test_the_result_comes_through_and_nobody_listens_on() -> None:
    line = Line()

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await while_connected(line.receive, work()) == 7
    assert line.listening == 0


async def test_errors_come_through() -> None:
    async def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await while_connected(Line().receive, work())


async def test_a_client_that_leaves_ends_the_work_before_the_call_returns() -> None:
    line, work = Line(), Work()
    running = asyncio.create_task(while_connected(line.receive, work.run()))
    while work.state == "new":
        await asyncio.sleep(0)
    line.gone.set()
    with pytest.raises(ClientDisconnect):
        await running
    assert work.state == "cancelled"


async def test_cancelling_the_call_ends_the_work() -> None:
    line, work = Line(), Work()
    running = asyncio.create_task(while_connected(line.receive, work.run()))
    while work.state == "new":
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert work.state == "cancelled"
    assert line.listening == 0


async def test_late_pieces_of_the_body_are_not_a_disconnect() -> None:
    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(messages)

    with pytest.raises(ClientDisconnect):
        await while_connected(receive, Work().run())
    assert next(messages, None) is None


async def test_a_broken_channel_ends_the_work_too() -> None:
    async def receive() -> Message:
        raise OSError("connection reset")

    work = Work()
    with pytest.raises(OSError, match="reset"):
        await while_connected(receive, work.run())
    assert work.state in ("new", "cancelled")
