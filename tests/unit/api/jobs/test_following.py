"""A job's events as a client reads them."""

import asyncio
import json
from typing import Any

import pytest

from serve_app.api.jobs.following import spoken
from serve_app.jobs.records import Event
from serve_app.jobs.watching import Told
from tests.unit.api.conftest import problem
from tests.unit.api.jobs.conftest import URL, Door


def read(text: str) -> list[tuple[int, str, Any]]:
    found = []
    for block in text.split("\n\n"):
        if block and not block.startswith(":"):
            lines = dict(line.split(": ", 1) for line in block.split("\n"))
            found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return found


async def test_a_job_from_beginning_to_end(door: Door) -> None:
    job_id = await door.submitted()
    following = asyncio.create_task(door.http.get(f"{URL}/{job_id}/events"))
    await door.work(1)
    await door.work()
    response = await following
    assert response.headers["Content-Type"].startswith("text/event-stream")
    events = read(response.text)
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    kinds = [kind for _, kind, _ in events]
    assert (kinds[0], kinds[-1]) == ("job.created", "job.finished")
    assert kinds.count("item.succeeded") == 3
    assert events[-1][2]["status"] == "succeeded"
    assert all(data["job_id"] == job_id and data["at"].endswith("Z") for _, _, data in events)


@pytest.mark.parametrize("sent", [{"params": {"after": 6}}, {"headers": {"Last-Event-ID": "6"}}])
async def test_going_on(door: Door, sent: Any) -> None:
    job_id = await door.submitted()
    await door.work()
    response = await door.http.get(f"{URL}/{job_id}/events", **sent)
    assert [number for number, _, _ in read(response.text)] == [7, 8]
    response = await door.http.get(f"{URL}/{job_id}/events?after=8")
    assert response.text == ""


@pytest.mark.parametrize("given", ["x", "-1", "9" * 11, "²"])
async def test_no_number(door: Door, given: str) -> None:
    job_id = await door.submitted()
    headers = {"Last-Event-ID": given.encode()}
    response = await door.http.get(f"{URL}/{job_id}/events", headers=headers)  # type: ignore[arg-type]
    problem(response, 422, "invalid-parameter", "Last-Event-ID")


def test_a_preview_is_told_by_its_address() -> None:
    event = Event("job_a", 4, "item.preview", 0.0, {"number": 2, "blob": "secret"})
    ((number, kind, data),) = read(spoken(Told(event)).decode())
    assert (number, kind) == (4, "item.preview")
    assert data == {
        "job_id": "job_a",
        "at": "1970-01-01T00:00:00.000Z",
        "number": 2,
        "url": "/v1/jobs/job_a/items/2/preview",
    }
    progress = Event(
        "job_a", 5, "item.progress", 0.0, {"number": 2, "tiles_done": 1, "tiles_total": 2}
    )
    assert read(spoken(Told(progress, 2.04)).decode())[0][2]["eta_s"] == 2.0
