"""The gRPC door through Serve's own proxy, with a plain grpcio client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from ray import serve

from serve_app.app import APP_NAME
from serve_app.rpc import tessera_pb2 as pb
from serve_app.rpc.tessera_pb2_grpc import UpscalerStub
from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import GRPC_PORT, Application

pytestmark = pytest.mark.integration
TO = [("application", "tessera")]
SMALL = png_bytes(photo_like(48, 64, seed=1))
LARGE = png_bytes(photo_like(500, 700, seed=1))


@pytest.fixture(scope="module")
def stub(application: Application) -> Iterator[Any]:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{GRPC_PORT}", options=options) as channel:
        yield UpscalerStub(channel)


def idle() -> bool:
    """Whether no tile is left at the denoiser, within a while."""
    handle = serve.get_deployment_handle("Denoiser", APP_NAME)
    for _ in range(100):
        load = handle.load.remote().result()
        if load.tiles == 0:
            return True
        time.sleep(0.1)
    return False


def asked(image: bytes, **params: Any) -> Any:
    return pb.UpscaleRequest(image=image, params=pb.Params(**params))


def test_a_picture_is_the_one_that_http_gives(application: Application, stub: Any) -> None:
    metadata = [*TO, ("request_id", "mine-1")]
    result = stub.Upscale(asked(SMALL, scale=2, seed=5), metadata=metadata, timeout=300)
    assert (result.width, result.height, result.params.seed) == (128, 96, 5)
    assert result.request_id == "mine-1"
    assert result.report.lr_psnr_db > 30
    with application.client() as client:
        fields = {"scale": "2", "seed": "5"}
        answer = client.post("/v1/upscale", files={"image": SMALL}, data=fields)
    assert answer.content == result.image


def test_progress_is_streamed(stub: Any) -> None:
    events = list(stub.UpscaleWithProgress(asked(SMALL, scale=2, seed=5), metadata=TO, timeout=300))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[-1] == "result"
    assert set(kinds[:-1]) == {"progress"}
    last = events[-2].progress
    assert last.tiles_done == last.tiles_total > 0


def test_models(stub: Any) -> None:
    (model,) = stub.Models(pb.ModelsRequest(), metadata=TO, timeout=60).models
    assert model.name == "mini"


@pytest.mark.parametrize("method", ["Upscale", "UpscaleWithProgress"])
def test_a_fault_is_a_status_and_a_sentence(stub: Any, method: str) -> None:
    for message, said in [(asked(b"text"), "picture"), (asked(SMALL, scale=9), "scale")]:
        with pytest.raises(grpc.RpcError) as caught:
            list(getattr(stub, method)(message, metadata=TO, timeout=60))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert said in caught.value.details()
        assert "(request " in caught.value.details()


def test_cancelling_and_a_deadline_give_the_work_up(stub: Any) -> None:
    events = stub.UpscaleWithProgress(asked(LARGE, scale=4), metadata=TO)
    next(events)
    events.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Upscale(asked(LARGE, scale=4), metadata=TO, timeout=1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert idle()  # both would go on for more than a minute
