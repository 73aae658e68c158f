"""Jobs of a server, over a real store; connections that break are a transport's that breaks them."""

import asyncio
import hashlib
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serve_app import errors
from serve_app.api import create_api
from serve_app.client import JobEvent, JobsClient, ServerUnreachable, Submission
from serve_app.contracts import Priority, UpscaleParams
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler
from tests.unit.api.jobs.conftest import PICTURES
from tests.unit.api.live import serving_in_thread
from tests.unit.live_jobs import JobServer, serving_jobs

UNKNOWN = f"job_{'0' * 26}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    with serving_jobs(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture
async def client(server: JobServer) -> AsyncIterator[JobsClient]:
    server.allowed = 10_000
    async with JobsClient(server.url) as found:
        yield found


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    names = ["a.png", 'b "\n%.png', "ü.png"]
    for name, data in zip(names, PICTURES, strict=True):
        (tmp_path / name).write_bytes(data)
    return [tmp_path / name for name in names]


async def ended(client: JobsClient, job_id: str) -> list[JobEvent]:
    return [event async for event in client.events(job_id)]


class TestSubmitting:
    async def test_files_become_items_in_their_order(
        self, client: JobsClient, pictures: list[Path]
    ) -> None:
        params = UpscaleParams(scale=2, seed=5, keep_gps=True)
        job = await client.submit(Submission(pictures, params, priority=Priority.INTERACTIVE))
        assert (job["priority"], job["counts"]["total"]) == ("interactive", 3)
        assert (job["params"]["scale"], job["params"]["keep_gps"]) == (2, True)
        items = [item async for item in client.items(job["id"])]
        assert [item["name"] for item in items] == ["a.png", "b %22%0A%.png", "ü.png"]
        assert {item["params"]["seed"] for item in items} == {5}
        assert (await client.item(job["id"], 2))["name"] == "ü.png"
        await ended(client, job["id"])

    async def test_one_key_is_one_job(self, client: JobsClient, pictures: list[Path]) -> None:
        submission = Submission(pictures, key="mine")
        first, again = [await client.submit(submission) for _ in range(2)]
        assert first["id"] == again["id"]
        with pytest.raises(errors.IdempotencyConflict):
            await client.submit(Submission(pictures[:1], key="mine"))
        await ended(client, first["id"])

    async def test_a_file_that_is_gone(self, client: JobsClient, pictures: list[Path]) -> None:
        pictures[1].unlink()
        with pytest.raises(FileNotFoundError):
            await client.submit(Submission(pictures))

    async def test_what_the_server_refuses(self, client: JobsClient, pictures: list[Path]) -> None:
        with pytest.raises(errors.TooLarge, match="more than 5 pictures"):
            await client.submit(Submission(pictures * 2))
        with pytest.raises(errors.InvalidParameter, match="webhook_url"):
            await client.submit(Submission(pictures, webhook_url="https://example.org"))
        with pytest.raises(errors.InvalidParameter, match="pose"):
            await client.submit(Submission(pictures, control_images={"pose": PICTURES[0]}))


async def test_jobs_are_listed_given_up_and_tried_again(
    server: JobServer, client: JobsClient, pictures: list[Path]
) -> None:
    server.allowed = server.ended
    async with JobsClient(server.url, tenant="another") as another:
        older, newer = [
            (await another.submit(Submission(pictures[:count])))["id"] for count in (1, 2)
        ]
        assert [job["id"] for job in await another.jobs()] == [newer, older]
        assert [job["id"] for job in await another.jobs(most=1)] == [newer]
        assert (await another.cancel(newer))["status"] == "cancelled"
        assert [job["id"] for job in await another.jobs("cancelled")] == [newer]
        assert (await another.retry(newer))["counts"]["queued"] == 2
        with pytest.raises(errors.NotFound):
            await client.job(newer)  # the default tenant's
        server.allowed = 10_000
        for job_id in (older, newer):
            assert (await ended(another, job_id))[-1].kind == "job.finished"


class TestFollowing:
    async def test_every_event_once_and_in_order(
        self, client: JobsClient, pictures: list[Path]
    ) -> None:
        job = await client.submit(Submission(pictures))
        events = await ended(client, job["id"])
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert [event.kind for event in events if event.kind != "item.started"] == [
            "job.created",
            *["item.succeeded"] * 3,
            "job.finished",
        ]
        assert events[-1].data["counts"]["succeeded"] == 3
        tail = [event async for event in client.events(job["id"], 5)]
        assert tail == events[5:]
        assert [event async for event in client.events(job["id"], events[-1].sequence)] == []

    @pytest.mark.parametrize(
        "fault",
        [
            lambda body: httpx.ReadError("broken"),
            lambda body: httpx.Response(200, content=body[: len(body) // 2]),  # within an event
            lambda body: httpx.Response(200, content=body[body.index(b"\n\n") + 2 :]),  # a gap
            lambda body: httpx.Response(200, content=body * 2),  # told twice
            lambda body: httpx.Response(502, text="<html>"),
            lambda body: httpx.Response(200, content=b"id: x\ndata: {}\n\n"),
        ],
    )
    async def test_what_breaks_off_is_taken_up_behind_the_last_event(
        self,
        client: JobsClient,
        pictures: list[Path],
        fault: Callable[[bytes], httpx.Response | Exception],
    ) -> None:
        job = await client.submit(Submission(pictures))
        events = await ended(client, job["id"])
        path = f"/v1/jobs/{job['id']}/events"
        places: list[str] = []

        async def answer(request: httpx.Request) -> httpx.Response:
            asked = await client.http.request(
                request.method, request.url.raw_path.decode(), headers=request.headers
            )
            if request.url.path == path:
                places.append(request.headers["Last-Event-ID"])
                if len(places) == 1:
                    found = fault(asked.content)
                    if isinstance(found, Exception):
                        raise found
                    return found
            kind = {"Content-Type": asked.headers["Content-Type"]}
            return httpx.Response(asked.status_code, content=asked.content, headers=kind)

        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        transport = httpx.MockTransport(answer)
        async with JobsClient("http://tessera", transport=transport, sleep=sleep) as shaky:
            assert await ended(shaky, job["id"]) == events
        if len(places) > 1:
            assert len(pauses) == 1
            assert pauses[0] < 1

    async def test_a_server_that_stays_away_is_given_up(self) -> None:
        def refuse(_: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        transport = httpx.MockTransport(refuse)
        async with JobsClient("http://t", transport=transport, sleep=sleep, patience_s=60) as away:
            with pytest.raises(ServerUnreachable, match="refused"):
                await ended(away, UNKNOWN)
        assert 60 <= sum(pauses) < 80
        assert pauses[0] < 0.5 < max(pauses) < 20

    async def test_a_job_that_is_not_there_is_not_waited_for(self, client: JobsClient) -> None:
        with pytest.raises(errors.NotFound):
            await ended(client, UNKNOWN)
        with pytest.raises(errors.NotFound):
            await client.job("../models")


class TestFetching:
    async def test_a_result_is_what_its_digest_says(
        self, client: JobsClient, pictures: list[Path], tmp_path: Path
    ) -> None:
        job = await client.submit(Submission(pictures))
        await ended(client, job["id"])
        target = tmp_path / "made" / "below" / "a.png"
        await client.download(job["id"], 0, target)
        item = await client.item(job["id"], 0)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == item["result"]["sha256"]
        await client.download_all(job["id"], tmp_path / "all.zip")
        with zipfile.ZipFile(tmp_path / "all.zip") as archive:
            assert len(archive.namelist()) == 3
            assert archive.read(archive.namelist()[0]) == target.read_bytes()

    async def test_a_damaged_one_is_fetched_again_and_never_seen(self, tmp_path: Path) -> None:
        good, tag = b"good", {"ETag": f'"{hashlib.sha256(b"good").hexdigest()}"'}
        answers = [b"bad", good]

        def answer(_: httpx.Request) -> httpx.Response:
            return httpx.Response(200, content=answers.pop(0), headers=tag)

        async def sleep(_: float) -> None:
            assert list(tmp_path.iterdir()) == []

        transport = httpx.MockTransport(answer)
        async with JobsClient("http://tessera", transport=transport, sleep=sleep) as client:
            await client.download(UNKNOWN, 0, tmp_path / "a.png")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [good]

    async def test_none_yet(
        self, client: JobsClient, server: JobServer, pictures: list[Path]
    ) -> None:
        server.allowed = server.ended
        job = await client.submit(Submission(pictures))
        for fetch in (
            client.download(job["id"], 0, pictures[0].with_name("x")),
            client.download_all(job["id"], pictures[0].with_name("x")),
        ):
            with pytest.raises(errors.WrongState):
                await fetch
        assert not pictures[0].with_name("x").exists()
        await client.cancel(job["id"])


async def test_whether_jobs_are_offered(client: JobsClient) -> None:
    assert await client.offered()
    with serving_in_thread(create_api(FakeUpscaler(), Settings())) as url:
        async with JobsClient(url) as without:
            assert not await without.offered()
    async with JobsClient("http://127.0.0.1:1") as nobody:
        with pytest.raises(ServerUnreachable):
            await nobody.offered()


async def test_a_busy_server_is_sent_the_pictures_again(pictures: list[Path]) -> None:
    bodies: list[int] = []
    busy = {"type": "urn:tessera:problem:busy", "detail": "Full.", "request_id": "r"}

    async def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(len(await request.aread()))
        if len(bodies) == 1:
            told = json.dumps(busy | {"retry_after_s": 7})
            return httpx.Response(
                429, content=told, headers={"Content-Type": "application/problem+json"}
            )
        return httpx.Response(202, json={"id": UNKNOWN})

    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    transport = httpx.MockTransport(answer)
    async with JobsClient("http://tessera", transport=transport, sleep=sleep) as client:
        assert (await client.submit(Submission(pictures)))["id"] == UNKNOWN
    assert bodies[0] == bodies[1] > sum(path.stat().st_size for path in pictures)
    assert pauses == [7]
