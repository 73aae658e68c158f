"""The page's way to a server: what it sends, and what becomes of the answers."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from serve_app.client import ServerUnreachable
from serve_app.contracts import Priority, UpscaleParams
from serve_app.errors import InvalidParameter
from serve_app.ui.http import HttpBackend

JOB = {"id": "job_1", "status": "queued", "counts": {"total": 1}, "unknown": 1}


def backend(answer: Callable[[httpx.Request], httpx.Response]) -> HttpBackend:
    return HttpBackend("http://server", transport=httpx.MockTransport(answer))


async def test_pictures_and_archives_are_sent_as_parts_of_a_job(tmp_path: Path):
    picture, packed = tmp_path / "a.png", tmp_path / "b.zip"
    picture.write_bytes(b"picture")
    packed.write_bytes(b"packed")
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json=JOB)

    params = UpscaleParams(scale=2)
    job = await backend(answer).submit([picture, packed], params, Priority.BATCH, "t")
    body = seen[0].content
    assert job.id == "job_1"
    assert b'name="images"; filename="a.png"' in body
    assert b'name="archive"; filename="b.zip"' in body
    assert b'name="priority"\r\n\r\nbatch' in body
    assert seen[0].headers["X-Tenant-Id"] == "t"


async def test_events_are_told_in_order():
    text = 'id: 1\nevent: item.progress\ndata: {"number": 0}\n\n: waiting\n\n'
    text += "id: 2\nevent: job.finished\ndata: {}\n\n"
    found = backend(lambda _: httpx.Response(200, text=text))
    told = [(t.kind, dict(t.data)) async for t in found.follow("job_1", "")]
    assert told == [("item.progress", {"number": 0}), ("job.finished", {})]


async def test_files_are_written_as_they_come(tmp_path: Path):
    found = backend(lambda _: httpx.Response(200, content=b"file"))
    await found.result("job_1", 0, "", tmp_path / "a")
    await found.archive("job_1", "", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"file"


async def test_no_preview_is_none():
    assert await backend(lambda _: httpx.Response(404)).preview("job_1", 0, "") is None
    assert await backend(lambda _: httpx.Response(200, content=b"j")).preview("j", 0, "") == b"j"


async def test_problems_are_the_trees_errors():
    problem = {
        "type": "urn:tessera:problem:invalid-parameter",
        "detail": "steps: too many",
        "request_id": "r",
    }
    kind = {"Content-Type": "application/problem+json"}
    found = backend(lambda _: httpx.Response(422, json=problem, headers=kind))
    with pytest.raises(InvalidParameter, match=r"steps: too many \(request r\)"):
        await found.job("job_1", "")
    with pytest.raises(ServerUnreachable):
        await backend(lambda _: httpx.Response(502, text="bad")).offer()


async def test_a_dead_server_is_said():
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ServerUnreachable, match="refused"):
        await backend(answer).cancel("job_1", "")
