import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from serve_app import errors
from serve_app.api import create_api
from serve_app.api.problems import STATUS
from serve_app.client import HttpUpscaler, ServerUnreachable
from serve_app.contracts import ControlInfo, Priority, Progress, UpscaleParams, UpscaleRequest
from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL, FakeUpscaler, photo_like, png_bytes
from tests.unit.api.live import serving

PNG = png_bytes(photo_like(6, 8, seed=1))
STEP = Progress(stage="denoise", tiles_done=0, tiles_total=2, steps_done=3, steps_total=16)


def asked(**given: Any) -> UpscaleRequest:
    return UpscaleRequest(image=PNG, params=UpscaleParams(**given), request_id="mine-1")


@asynccontextmanager
async def client_of(upscaler: FakeUpscaler, **options: Any) -> AsyncIterator[HttpUpscaler]:
    transport = httpx.ASGITransport(create_api(upscaler, Settings()))
    async with HttpUpscaler("http://tessera", transport=transport, **options) as client:
        yield client


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> HttpUpscaler:
    return HttpUpscaler("http://tessera", transport=httpx.MockTransport(answer))


async def test_a_server_gives_the_same_result_as_the_upscaler_behind_it() -> None:
    fake = FakeUpscaler(progress=[STEP])
    reports: list[Progress] = []
    given = {"scale": 2.5, "seed": 2**63 - 1, "output_format": "webp", "steps": 3, "strength": 0.1}
    async with client_of(fake) as client:
        result = await client.upscale(asked(**given), reports.append)
    assert fake.requests == [asked(**given)]
    assert result == await FakeUpscaler().upscale(asked(**given))
    assert reports == [STEP]


async def test_controls_their_pictures_and_the_lane_arrive() -> None:
    controls = {"canny": ControlInfo(picture="canny"), "pose": ControlInfo(picture="given")}
    model = FAKE_MODEL.model_copy(
        update={"controls": FAKE_MODEL.controls | controls, "loras": ("turbo",)}
    )
    fake = FakeUpscaler(models=[model])
    given = asked(
        controls=({"name": "canny", "scale": 0.5}, {"name": "pose"}), lora="turbo", lora_scale=0.5
    ).model_copy(
        update={
            "control_images": {"pose": b"P"},
            "priority": Priority.BATCH,
            "tenant": "team-1",
        }
    )
    async with client_of(fake) as client:
        result = await client.upscale(given)
    assert fake.requests == [given]
    assert [control.name for control in result.params.controls] == ["canny", "pose"]


async def test_models_and_readiness() -> None:
    fake = FakeUpscaler()
    async with client_of(fake) as client:
        assert await client.models() == [FAKE_MODEL]
        assert await client.ready() is True
        fake.is_ready = False
        assert await client.ready() is False


@pytest.mark.parametrize("kind", sorted(STATUS, key=lambda kind: kind.code))
async def test_every_error_arrives_as_itself(kind: type[errors.TesseraError]) -> None:
    fake = FakeUpscaler(kind("What was wrong.", field="steps", allowed="1 to 2", retry_after_s=3))
    async with client_of(fake, busy_retries=0) as client:
        with pytest.raises(errors.TesseraError) as caught:
            await client.upscale(asked())
    error = caught.value
    assert type(error) is kind
    assert (error.field, error.allowed, error.retry_after_s) == ("steps", "1 to 2", 3)
    assert error.detail.endswith("(request mine-1)")


async def test_a_problem_by_status_arrives_as_itself() -> None:
    async with client_of(FakeUpscaler()) as client:
        big = UpscaleRequest(image=b"x" * (64 * 2**20 + 1), request_id="mine-1")
        with pytest.raises(errors.TooLarge, match="mine-1") as caught:
            await client.upscale(big)
    assert caught.value.field == "image"


class TestBusy:
    async def test_is_retried_after_the_time_asked_for(self) -> None:
        waits: list[float] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        busy = errors.Busy("Full.", retry_after_s=2.5)
        patient = errors.Busy("Full.", retry_after_s=9999)
        fake = FakeUpscaler([busy, patient, None])
        async with client_of(fake, sleep=sleep) as client:
            result = await client.upscale(asked())
        assert result.width == 32
        assert waits == [2.5, 60]

    async def test_is_given_up_after_a_bounded_number_of_times(self) -> None:
        async def sleep(_: float) -> None:
            return

        fake = FakeUpscaler(errors.Busy("Full."))
        async with client_of(fake, sleep=sleep, busy_retries=2) as client:
            with pytest.raises(errors.Busy, match="Full"):
                await client.upscale(asked())
        assert len(fake.requests) == 3

    async def test_other_errors_are_not_retried(self) -> None:
        fake = FakeUpscaler(errors.TileFailed("Gone."))
        async with client_of(fake) as client:
            with pytest.raises(errors.TileFailed):
                await client.upscale(asked())
        assert len(fake.requests) == 1


async def test_a_request_has_its_own_deadline() -> None:
    fake = FakeUpscaler(gate=asyncio.Event())
    request = asked().model_copy(update={"timeout_s": 0.05})
    async with client_of(fake) as client:
        with pytest.raises(errors.DeadlineExceeded, match=r"0\.05 s"):
            await client.upscale(request)
    assert fake.cancelled.is_set()


async def test_cancelling_reaches_the_work_on_the_server() -> None:
    fake = FakeUpscaler(gate=asyncio.Event())
    async with (
        asyncio.timeout(20),
        serving(create_api(fake, Settings())) as port,
        HttpUpscaler(f"http://127.0.0.1:{port}") as client,
    ):
        call = asyncio.create_task(client.upscale(asked()))
        await fake.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await fake.cancelled.wait()


class TestUnreachable:
    async def test_nobody_listens(self) -> None:
        async with HttpUpscaler("http://127.0.0.1:1") as client:
            for call in (client.ready(), client.models(), client.upscale(asked())):
                with pytest.raises(ServerUnreachable, match=r"http://127\.0\.0\.1:1"):
                    await call

    @pytest.mark.parametrize("url", ["ftp://x", "nonsense", "http://[bad"])
    async def test_no_url(self, url: str) -> None:
        with pytest.raises(ServerUnreachable, match=r"cannot be reached|is not a URL"):
            async with HttpUpscaler(url) as client:
                await client.ready()

    async def test_somebody_else_listens(self) -> None:
        async with answering(lambda _: httpx.Response(502, text="<html>")) as client:
            with pytest.raises(ServerUnreachable, match="502"):
                await client.upscale(asked())
            with pytest.raises(ServerUnreachable, match="502"):
                await client.models()
            assert await client.ready() is False
        async with answering(lambda _: httpx.Response(200, json={"models": [{}]})) as client:
            with pytest.raises(ServerUnreachable, match="does not speak Tessera"):
                await client.models()

    @pytest.mark.parametrize(
        ("stream", "reason"),
        [
            (b"", "closed the connection"),
            (b": waiting\n\n", "closed the connection"),
            (b"event: result\ndata: {", "closed the connection"),
            (b"event: result\ndata: {}\n\n", "does not speak Tessera"),
            (b"event: progress\ndata: 3\n\n", "does not speak Tessera"),
            (b"event: error\ndata: {}\n\n", "does not speak Tessera"),
        ],
    )
    async def test_a_stream_that_breaks_off(self, stream: bytes, reason: str) -> None:
        async with answering(lambda _: httpx.Response(200, content=stream)) as client:
            with pytest.raises(ServerUnreachable, match=reason):
                await client.upscale(asked(), lambda _: None)


async def test_an_unknown_code_is_still_an_error_of_the_tree() -> None:
    document = {"type": "urn:tessera:problem:new", "detail": "New.", "request_id": "r"}
    stream = f"event: error\ndata: {json.dumps(document)}\n\n"
    async with answering(lambda _: httpx.Response(200, text=stream)) as client:
        with pytest.raises(errors.TesseraError, match=r"New\. \(request r\)") as caught:
            await client.upscale(asked())
    assert type(caught.value) is errors.TesseraError


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\r\n", "\n"])
async def test_a_prompt_that_holds_a_line_separator_comes_back(mark: str) -> None:
    prompted = FAKE_MODEL.model_copy(update={"takes_prompt": True})
    async with client_of(FakeUpscaler(models=[prompted])) as client:
        result = await client.upscale(asked(prompt=f"a{mark}b"))
    assert result.params.prompt == f"a{mark}b"
