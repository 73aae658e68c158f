"""An upscaler on a generator function, as a lender of GPUs wraps it."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from lent import LentUpscaler

from serve_app.contracts import ModelInfo, Progress, UpscaleRequest, UpscaleResult
from serve_app.errors import Busy, TooLarge
from serve_app.testing import FakeUpscaler, photo_like, png_bytes

REQUEST = UpscaleRequest(image=png_bytes(photo_like(20, 30)), request_id="r")
PROGRESS = Progress(stage="denoise", tiles_done=1, tiles_total=4, steps_done=1, steps_total=4)


@pytest.fixture
async def info() -> ModelInfo:
    return (await FakeUpscaler().models())[0]


@pytest.fixture
async def result() -> UpscaleResult:
    return await FakeUpscaler().upscale(REQUEST)


async def test_progress_and_the_result_come_through(info: ModelInfo, result: UpscaleResult):
    def lend(request: UpscaleRequest) -> Iterator[Any]:
        yield from (None, PROGRESS, result)

    told: list[Progress] = []
    heard: list[UpscaleResult] = []
    upscaler = LentUpscaler(lend, info, 1, heard.append)
    assert await upscaler.upscale(REQUEST, told.append) is result
    assert (told, heard) == ([PROGRESS], [result])
    assert await upscaler.models() == [info]
    assert await upscaler.ready()


async def test_an_error_that_is_said_is_raised(info: ModelInfo):
    def lend(request: UpscaleRequest) -> Iterator[Any]:
        yield TooLarge("over a limit")

    with pytest.raises(TooLarge, match="over a limit"):
        await LentUpscaler(lend, info, 1).upscale(REQUEST)


async def test_what_the_lender_says_is_passed_on(info: ModelInfo):
    class Refused(Exception):
        title, message = "Quota", "Try again at 12"

    def lend(request: UpscaleRequest) -> Iterator[Any]:
        raise Refused
        yield

    with pytest.raises(Busy, match="Quota: Try again at 12"):
        await LentUpscaler(lend, info, 1).upscale(REQUEST)


async def test_a_generator_that_ends_early_is_no_result(info: ModelInfo):
    def lend(request: UpscaleRequest) -> Iterator[Any]:
        yield PROGRESS

    with pytest.raises(Busy, match="taken away"):
        await LentUpscaler(lend, info, 1).upscale(REQUEST)


async def test_a_cancelled_picture_is_left_and_frees_its_place(
    info: ModelInfo, result: UpscaleResult
):
    begun, closed = threading.Event(), threading.Event()

    def lend(request: UpscaleRequest) -> Iterator[Any]:
        if closed.is_set():
            yield result
            return
        try:
            while True:
                begun.set()
                yield None
        finally:
            closed.set()

    upscaler = LentUpscaler(lend, info, 0)
    first = asyncio.create_task(upscaler.upscale(REQUEST))
    await asyncio.to_thread(begun.wait, 5)
    with pytest.raises(Busy):
        await upscaler.upscale(REQUEST)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert closed.is_set()
    assert await upscaler.upscale(REQUEST) is result
