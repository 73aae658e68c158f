"""An upscaler on a loop of its own, heard through an iterator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from studio import Studio

from serve_app.contracts import Progress, UpscaleRequest, UpscaleResult
from serve_app.errors import TileFailed
from serve_app.testing import FakeUpscaler, photo_like, png_bytes

REQUEST = UpscaleRequest(image=png_bytes(photo_like(20, 30)), request_id="r")
PROGRESS = Progress(stage="denoise", tiles_done=1, tiles_total=4, steps_done=1, steps_total=4)


def studio_of(upscaler: FakeUpscaler) -> tuple[Studio, list[str]]:
    opened: list[str] = []

    @asynccontextmanager
    async def context() -> AsyncIterator[FakeUpscaler]:
        opened.append("opened")
        yield upscaler
        opened.append("closed")

    return Studio(context), opened


def test_it_opens_once_and_says_progress_and_result():
    studio, opened = studio_of(FakeUpscaler(progress=[PROGRESS]))
    assert opened == []
    for _ in range(2):
        progress, result = list(studio.upscale(REQUEST))
        assert progress == PROGRESS
        assert isinstance(result, UpscaleResult)
    assert opened == ["opened"]


def test_an_error_is_said():
    studio, _ = studio_of(FakeUpscaler(error=[TileFailed("no")]))
    (word,) = studio.upscale(REQUEST)
    assert isinstance(word, TileFailed)
    assert word.detail == "no"


def test_signs_of_life_let_a_caller_leave():
    upscaler = FakeUpscaler(gate=asyncio.Event())
    said = studio_of(upscaler)[0].upscale(REQUEST)
    assert next(said) is None
    said.close()  # type: ignore[attr-defined]

    async def heard() -> None:
        async with asyncio.timeout(5):
            while not upscaler.cancelled.is_set():
                await asyncio.sleep(0.01)

    asyncio.run(heard())
    assert upscaler.cancelled.is_set()
