"""Clients that leave early, against a real server on loopback."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from serve_app.api import create_api
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler
from tests.unit.api.conftest import PNG
from tests.unit.api.live import serving
from tests.unit.api.test_body import part

BODY = part("image", PNG, "a.png") + b"--X--\r\n"


def head(accept: str, length: int = len(BODY)) -> bytes:
    lines = [
        "POST /v1/upscale HTTP/1.1",
        "Host: tessera",
        "Content-Type: multipart/form-data; boundary=X",
        f"Content-Length: {length}",
        f"Accept: {accept}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("accept", ["image/*", "application/json", "text/event-stream"])
async def test_leaving_cancels_the_work(accept: str, settings: Settings) -> None:
    upscaler = FakeUpscaler(gate=asyncio.Event())  # never opened
    async with asyncio.timeout(10), serving(create_api(upscaler, settings)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(accept) + BODY)
        await upscaler.started.wait()
        assert upscaler.running == 1
        writer.close()
        await upscaler.cancelled.wait()
        assert upscaler.running == 0
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/healthz")).status_code == 200


async def test_leaving_in_the_middle_of_the_body_starts_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "serve_app.api")
    upscaler = FakeUpscaler()
    async with asyncio.timeout(10), serving(create_api(upscaler, settings)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("*/*") + BODY[:100])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        while not caplog.records:
            await asyncio.sleep(0.01)
    assert [vars(record)["action"] for record in caplog.records] == ["client_gone"]
    assert upscaler.requests == []


async def test_a_stream_arrives_while_the_work_runs(settings: Settings) -> None:
    gate = asyncio.Event()
    upscaler = FakeUpscaler(gate=gate)
    async with asyncio.timeout(10), serving(create_api(upscaler, settings)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("text/event-stream") + BODY)
        assert b"200 OK" in await reader.readline()
        await upscaler.started.wait()
        gate.set()
        assert b"event: result" in await reader.readuntil(b"event: result")
        writer.close()


async def test_too_much_without_a_length_is_answered(settings: Settings) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield part("image", b"", "a.png")[:-2]
        for _ in range(1000):
            yield b"A" * 10_000

    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    async with (
        asyncio.timeout(10),
        serving(create_api(FakeUpscaler(), settings)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        response = await http.post("/v1/upscale", content=endless(), headers=headers)
    assert response.status_code == 413
    assert response.json()["field"] == "image"
