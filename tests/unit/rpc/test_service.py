import asyncio
from typing import Any

import grpc
import pytest

from serve_app import errors
from serve_app.contracts import Progress
from serve_app.rpc import tessera_pb2 as pb
from serve_app.rpc.service import UpscalerService
from serve_app.testing import FAKE_MODEL, FakeUpscaler, photo_like, png_bytes

ASKED = pb.UpscaleRequest(image=png_bytes(photo_like(6, 8, seed=1)), params=pb.Params(scale=2))
STEP = Progress(stage="denoise", tiles_done=0, tiles_total=2, steps_done=3, steps_total=16)


class Call:
    code: grpc.StatusCode | None = None
    details = ""

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


async def events_of(service: UpscalerService, message: Any, call: Call) -> list[Any]:
    return [event async for event in service.upscale_with_progress(message, call, "r")]


async def test_one_picture_in_one_picture_out() -> None:
    result = await UpscalerService(FakeUpscaler()).upscale(ASKED, Call(), "r")
    assert (result.width, result.height, result.request_id) == (16, 12, "r")


async def test_progress_then_the_result() -> None:
    told = await events_of(UpscalerService(FakeUpscaler(progress=[STEP, STEP])), ASKED, Call())
    assert [event.WhichOneof("event") for event in told] == ["progress", "progress", "result"]
    assert told[0].progress.tiles_total == 2
    assert told[-1].result.width == 16


async def test_leaving_the_stream_gives_the_work_up() -> None:
    fake = FakeUpscaler(progress=[STEP], gate=asyncio.Event())
    events = UpscalerService(fake).upscale_with_progress(ASKED, Call(), "r")
    assert (await anext(events)).progress.steps_done == 3
    await events.aclose()  # type: ignore[attr-defined]
    assert fake.cancelled.is_set()


async def test_models() -> None:
    told = await UpscalerService(FakeUpscaler()).models(pb.ModelsRequest(), Call(), "r")
    assert [model.name for model in told.models] == [FAKE_MODEL.name]


async def test_errors_are_a_status_and_a_sentence() -> None:
    service = UpscalerService(FakeUpscaler(errors.Busy("Full", retry_after_s=2)))
    for ask in (service.upscale(ASKED, call := Call(), "r"), events_of(service, ASKED, call)):
        with pytest.raises(errors.Busy):
            await ask
        assert call.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call.details == "Full; try again in 2 s (request r)"


async def test_what_nobody_foresaw_is_not_told() -> None:
    call = Call()
    with pytest.raises(ZeroDivisionError):
        await UpscalerService(FakeUpscaler(ZeroDivisionError("secret"))).upscale(ASKED, call, "r")
    assert call.code is grpc.StatusCode.INTERNAL
    assert "secret" not in call.details
    assert "request r" in call.details
