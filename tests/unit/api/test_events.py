import asyncio
import json
from typing import Any

import httpx
import pytest

from serve_app import errors
from serve_app.api import create_api, events
from serve_app.api.events import EventStream
from serve_app.api.problems import Problems
from serve_app.contracts import Progress, ProgressCallback, UpscaleResult
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler
from tests.unit.api.conftest import PNG, problem

URL = "/v1/upscale"
FILE = {"image": ("photo.png", PNG)}
EVENTS = {"Accept": "text/event-stream"}


def step(done: int) -> Progress:
    return Progress(stage="denoise", tiles_done=0, tiles_total=2, steps_done=done, steps_total=16)


def read(text: str) -> list[tuple[str, Any]]:
    """Parses a stream of whole events; every block must be an event or a comment."""
    found = []
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_progress_then_the_result(http: httpx.AsyncClient, upscaler: FakeUpscaler) -> None:
    upscaler.progress = [step(3)]
    response = await http.post(URL, files=FILE, headers={**EVENTS, "X-Request-Id": "mine"})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Request-Id"] == "mine"
    assert "Content-Length" not in response.headers
    first, last = read(response.text)
    assert first == ("progress", step(3).model_dump())
    as_json = await http.post(
        URL, files=FILE, headers={"Accept": "application/json", "X-Request-Id": "mine"}
    )
    assert last == ("result", as_json.json())


async def test_reports_that_come_faster_than_they_are_sent_are_coalesced(
    http: httpx.AsyncClient, upscaler: FakeUpscaler
) -> None:
    upscaler.progress = [step(done) for done in range(17)]
    found = read((await http.post(URL, files=FILE, headers=EVENTS)).text)
    assert [name for name, _ in found] == ["progress", "result"]
    assert found[0][1]["steps_done"] == 16


async def test_an_error_is_the_last_event(http: httpx.AsyncClient, upscaler: FakeUpscaler) -> None:
    upscaler.error = errors.Busy("All places are taken.", retry_after_s=3)
    response = await http.post(URL, files=FILE, headers={**EVENTS, "X-Request-Id": "mine"})
    assert read(response.text) == [
        (
            "error",
            {
                "type": "urn:tessera:problem:busy",
                "title": "Busy",
                "status": 429,
                "detail": "All places are taken.",
                "request_id": "mine",
                "retry_after_s": 3,
            },
        )
    ]


async def test_the_unforeseen_is_logged_and_not_told(
    http: httpx.AsyncClient, upscaler: FakeUpscaler, caplog: pytest.LogCaptureFixture
) -> None:
    upscaler.error = TypeError("secret")
    response = await http.post(URL, files=FILE, headers=EVENTS)
    ((name, document),) = read(response.text)
    assert (name, document["status"]) == ("error", 500)
    assert "secret" not in response.text
    (record,) = [found for found in caplog.records if found.levelname == "ERROR"]
    assert vars(record)["action"] == "unexpected_error"


async def test_a_bad_parameter_is_told_by_the_status(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, files=FILE, data={"steps": "0"}, headers=EVENTS)
    problem(response, 422, "invalid-parameter", "steps")


class Conversation:
    """A stream under way, its parts taken one by one."""

    def __init__(self, keep_alive_s: float = 60) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.ended = asyncio.Event()
        self.report: ProgressCallback | None = None
        self.cancelled = False
        stream = EventStream(self.work, Problems(5), "mine", keep_alive_s)
        self.task = asyncio.create_task(
            stream({"type": "http", "path": URL}, self.receive, self.send)
        )

    async def work(self, on_progress: ProgressCallback) -> UpscaleResult:
        self.report = on_progress
        try:
            await self.ended.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise errors.TileFailed("Tile 3 failed.")

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.sent.put(message)


async def test_progress_is_sent_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PROGRESS_INTERVAL_S", 0.001)
    talk = Conversation()
    assert (await talk.sent.get())["status"] == 200
    while talk.report is None:
        await asyncio.sleep(0)
    for done in (1, 2, 5):
        talk.report(step(done))
        ((_, data),) = read((await talk.sent.get())["body"].decode())
        assert data["steps_done"] == done
    talk.report(step(6))
    talk.ended.set()
    await talk.task
    rest = [talk.sent.get_nowait() for _ in range(talk.sent.qsize())]
    assert [message["more_body"] for message in rest] == [True, True, False]
    assert [name for name, _ in read("".join(m["body"].decode() for m in rest))] == [
        "progress",
        "error",
    ]


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PROGRESS_INTERVAL_S", 0.001)
    talk = Conversation(keep_alive_s=0.001)
    await talk.sent.get()
    assert [(await talk.sent.get())["body"] for _ in range(2)] == [b": waiting\n\n"] * 2
    talk.gone.set()
    await talk.task


async def test_a_client_that_leaves_ends_the_work() -> None:
    talk = Conversation()
    while talk.report is None:
        await asyncio.sleep(0)
    talk.gone.set()
    await talk.task
    assert talk.cancelled
    assert talk.sent.qsize() == 1  # the head; nothing is sent to nobody


async def test_cancelling_the_response_ends_the_work() -> None:
    talk = Conversation()
    while talk.report is None:
        await asyncio.sleep(0)
    talk.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await talk.task
    assert talk.cancelled


async def test_an_application_streams_too(settings: Settings) -> None:
    gate = asyncio.Event()
    upscaler = FakeUpscaler(progress=[step(1)], gate=gate)
    transport = httpx.ASGITransport(create_api(upscaler, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://tessera") as http:
        post = asyncio.create_task(http.post(URL, files=FILE, headers=EVENTS))
        await upscaler.started.wait()
        gate.set()
        names = [name for name, _ in read((await post).text)]
    assert names == ["progress", "result"]
