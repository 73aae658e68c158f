import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from serve_app import errors
from serve_app.contracts import ControlParams, FidelityReport, Progress, UpscaleParams
from serve_app.rpc import tessera_pb2 as pb
from serve_app.rpc.translation import (
    models_message,
    params_of,
    progress_message,
    request_of,
    result_message,
    sentence_of,
    status_of,
)
from serve_app.testing import FAKE_MODEL, FakeUpscaler, photo_like, png_bytes

ROOT = Path(__file__).parents[3]
PNG = png_bytes(photo_like(6, 8, seed=1))


def names(message: Any) -> list[str]:
    return [field.name for field in message.DESCRIPTOR.fields]


def test_what_is_committed_is_what_the_proto_says(tmp_path: Path) -> None:
    proto = "serve_app/rpc/tessera.proto"
    out = [f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", *out, proto], cwd=ROOT, check=True
    )
    for made in (tmp_path / "serve_app/rpc").iterdir():
        assert made.read_bytes() == (ROOT / "serve_app/rpc" / made.name).read_bytes(), made.name


def test_the_messages_have_the_contracts_fields() -> None:
    assert names(pb.Params) == list(UpscaleParams.model_fields)
    assert names(pb.Control) == list(ControlParams.model_fields)
    assert names(pb.Progress) == list(Progress.model_fields)
    assert set(names(pb.FidelityReport)) == set(FidelityReport.model_fields)


def test_what_is_set_arrives_and_nothing_else() -> None:
    message = pb.Params(scale=2.5, seed=0, keep_gps=False, output_format="webp")
    message.controls.add(name="canny", scale=0.5)
    expected = {
        "scale": 2.5,
        "seed": 0,
        "keep_gps": False,
        "output_format": "webp",
        "controls": [{"name": "canny", "scale": 0.5}],
    }
    assert params_of(message) == UpscaleParams.parse(expected)
    assert params_of(pb.Params()) == UpscaleParams()


def test_a_request() -> None:
    message = pb.UpscaleRequest(
        image=PNG, control_images={"pose": b"P"}, priority="batch", tenant="team-1", timeout_s=5
    )
    request = request_of(message, "mine")
    assert (request.image, request.control_images) == (PNG, {"pose": b"P"})
    assert (request.priority.value, request.tenant) == ("batch", "team-1")
    assert (request.timeout_s, request.request_id) == (5, "mine")
    plain = request_of(pb.UpscaleRequest(image=PNG), "mine")
    assert (plain.priority.value, plain.tenant, plain.timeout_s) == ("interactive", "default", None)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.UpscaleRequest(params=pb.Params(scale=9)), "scale"),
        (pb.UpscaleRequest(priority="soon"), "priority"),
        (pb.UpscaleRequest(tenant="a b"), "tenant"),
        (pb.UpscaleRequest(timeout_s=-1), "timeout_s"),
    ],
)
def test_a_fault_names_its_field(message: Any, field: str) -> None:
    with pytest.raises(errors.InvalidParameter) as caught:
        request_of(message, "mine")
    assert caught.value.field == field


async def test_a_result_says_how_it_was_made() -> None:
    request = request_of(pb.UpscaleRequest(image=PNG, params=pb.Params(scale=2, seed=5)), "mine")
    result = await FakeUpscaler().upscale(request)
    message = result_message(result)
    assert (message.image, message.width, message.height) == (result.image, 16, 12)
    assert (message.params.seed, message.params.scale, message.request_id) == (5, 2, "mine")
    assert message.params.model == FAKE_MODEL.name
    assert dict(message.timings_s) == result.timings_s
    assert message.HasField("report") == (result.report is not None)
    report = FidelityReport(
        **dict.fromkeys(set(FidelityReport.model_fields) - {"warnings"}, 1), warnings=("Mind.",)
    )
    told = result_message(result.model_copy(update={"report": report})).report
    assert (told.lr_psnr_db, list(told.warnings)) == (1, ["Mind."])


def test_progress_and_models() -> None:
    progress = Progress(stage="denoise", tiles_done=1, tiles_total=2, steps_done=3, steps_total=16)
    assert progress_message(progress).steps_done == 3
    (model,) = models_message([FAKE_MODEL]).models
    assert (model.name, model.tile_px) == (FAKE_MODEL.name, FAKE_MODEL.tile_px)
    assert list(model.controls) == list(FAKE_MODEL.controls)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TooLarge("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.NotFound("x"), grpc.StatusCode.NOT_FOUND),
        (errors.Busy("x"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.ReplicaLost("x"), grpc.StatusCode.UNAVAILABLE),
        (errors.DeadlineExceeded("x"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.GarbageTile("x"), grpc.StatusCode.INTERNAL),
    ],
)
def test_each_error_has_a_status(error: errors.TesseraError, code: grpc.StatusCode) -> None:
    assert status_of(error) is code


def test_a_sentence_says_what_is_allowed_and_when_to_come_back() -> None:
    wrong = errors.InvalidParameter("scale: too large", field="scale", allowed="1 to 8")
    assert sentence_of(wrong, "r") == "scale: too large; allowed: 1 to 8 (request r)"
    full = errors.Busy("Full", retry_after_s=2.5)
    assert sentence_of(full, "r") == "Full; try again in 2.5 s (request r)"
    secret = errors.ConfigurationError("/home/someone/model is broken")
    assert "/home" not in sentence_of(secret, "r")
