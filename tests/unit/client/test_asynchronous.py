import asyncio
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from serve_app import errors
from serve_app.api import create_api
from serve_app.client import AsyncClient, Named, ServerUnreachable
from serve_app.client.options import Options
from serve_app.contracts import Progress, UpscaleParams
from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL, FakeUpscaler, photo_like, png_bytes
from tests.unit.live_jobs import JobServer

PNG = png_bytes(photo_like(6, 8, seed=1))
STEP = Progress(stage="denoise", tiles_done=0, tiles_total=2, steps_done=3, steps_total=16)


def client_of(fake: FakeUpscaler, **options: Any) -> AsyncClient:
    transport = httpx.ASGITransport(create_api(fake, Settings()))
    return AsyncClient("http://tessera", transport=transport, **options)


def test_the_options_are_the_parameters() -> None:
    assert list(Options.__annotations__) == list(UpscaleParams.model_fields)


async def test_a_picture_is_upscaled(tmp_path: Path) -> None:
    fake, reports = FakeUpscaler(progress=[STEP]), list[Progress]()
    path = tmp_path / "in.png"
    path.write_bytes(PNG)
    async with client_of(fake, tenant="team-1") as client:
        result = await client.upscale(
            path, scale=2, seed=5, priority="batch", request_id="mine", on_progress=reports.append
        )
    (asked,) = fake.requests
    assert (asked.image, asked.tenant, asked.priority.value) == (PNG, "team-1", "batch")
    assert (result.params.scale, result.params.seed, result.request_id) == (2, 5, "mine")
    assert reports == [STEP]
    saved = result.save(tmp_path / "new" / "out.png")
    assert saved.read_bytes() == result.image
    assert [found.name for found in saved.parent.iterdir()] == ["out.png"]


async def test_a_result_opens_as_a_pillow_image() -> None:
    fake = FakeUpscaler()
    async with client_of(fake) as client:
        result = await client.upscale(Image.open(io.BytesIO(PNG)))
    fitting = result.model_copy(update={"image": PNG})
    assert fitting.open().size == (8, 6)


async def test_a_parameter_is_refused_before_anything_is_sent() -> None:
    fake = FakeUpscaler()
    async with client_of(fake) as client:
        with pytest.raises(errors.InvalidParameter, match="scale") as caught:
            await client.upscale(PNG, scale=9)
    assert (caught.value.field, fake.requests) == ("scale", [])


async def test_plan_models_and_readiness() -> None:
    async with client_of(FakeUpscaler()) as client:
        plan = await client.plan(PNG, scale=2)
        assert (plan.source_height, plan.source_width) == (6, 8)
        assert (plan.height, plan.width) == (12, 16)
        assert plan.tiles >= 1
        assert await client.models() == [FAKE_MODEL]
        assert await client.ready() is True
        with pytest.raises(errors.UnsupportedImage):
            await client.plan(b"text")


class TestRetries:
    def answering(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> tuple[Any, list[float]]:
        left, slept = list(answers), list[float]()

        def answer(request: httpx.Request) -> httpx.Response:
            found = left.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        client = AsyncClient("http://tessera", retries=2, transport=httpx.MockTransport(answer))

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        monkeypatch.setattr(client._upscaler, "_sleep", sleep)
        return client, slept

    def problem(self, code: str, status: int, **facts: Any) -> httpx.Response:
        document = {"type": f"urn:tessera:problem:{code}", "detail": "Full.", "request_id": "r"}
        headers = {"Content-Type": "application/problem+json"}
        return httpx.Response(status, json=document | facts, headers=headers)

    async def test_the_server_says_when_to_try_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        full = [self.problem("busy", 429, retry_after_s=7.5) for _ in range(3)]
        client, slept = self.answering(monkeypatch, *full)
        async with client:
            with pytest.raises(errors.Busy):
                await client.upscale(PNG)
        assert slept == [7.5, 7.5]

    async def test_a_server_that_is_away_is_asked_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = [httpx.ConnectError("refused") for _ in range(3)]
        client, slept = self.answering(monkeypatch, *away)
        async with client:
            with pytest.raises(ServerUnreachable, match="refused"):
                await client.upscale(PNG)
        assert slept == [0.5, 1.0]

    async def test_what_the_caller_can_mend_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client, slept = self.answering(monkeypatch, self.problem("too-large", 413))
        async with client:
            with pytest.raises(errors.TooLarge):
                await client.upscale(PNG)
        assert slept == []


async def test_headers_go_with_each_request(server: JobServer) -> None:
    async with AsyncClient(server.url, headers={"X-Tenant-Id": "from-header"}) as client:
        await client.submit([Named("a.png", PNG)], seed=1)
        assert len(await client.jobs()) == 1
    async with AsyncClient(server.url, tenant="other") as client:
        assert await client.jobs() == []


async def test_a_jobs_whole_life(server: JobServer, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    kinds = list[str]()
    async with AsyncClient(server.url, tenant="life") as client:
        job = await client.submit([file, PNG, Named("a.png", PNG)], scale=2, key="k")
        again = await client.submit([file, PNG, Named("a.png", PNG)], scale=2, key="k")
        assert again.id == job.id
        ended = await job.wait(lambda event: kinds.append(event.kind))
        assert (ended.status, job.status, ended.counts["succeeded"]) == ("succeeded",) * 2 + (3,)
        assert kinds[0] == "job.created"
        assert kinds[-1] == "job.finished"
        names = [item.name for item in await job.items()]
        assert names == ["a.png", "picture-1", "a.png"]
        paths = await job.download(tmp_path / "out")
        assert [path.name for path in paths] == ["a.png", "picture-1.png", "a-2.png"]
        assert all(path.stat().st_size for path in paths)
        zipped = await job.download_zip(tmp_path / "all.zip")
        assert zipped.read_bytes().startswith(b"PK")
        assert (await client.job(job.id)).record.ended
        assert [found.id for found in await client.jobs("succeeded")] == [job.id]
        with pytest.raises(errors.NotFound):
            await client.job(f"job_{'0' * 26}")


async def test_a_job_is_cancelled_and_retried(server: JobServer) -> None:
    server.allowed = server.ended
    async with AsyncClient(server.url, tenant="cancels") as client, asyncio.timeout(20):
        job = await client.submit([PNG, PNG])
        assert (await job.cancel()).status in ("cancelling", "cancelled")
        assert (await job.wait()).counts["cancelled"] == 2
        server.allowed = 10_000
        await job.retry()
        assert (await job.wait()).counts["succeeded"] == 2
