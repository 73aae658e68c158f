"""The fidelity report in headers and JSON; a result without one says nothing of it."""

from __future__ import annotations

import json

import httpx
import pytest

from serve_app.api.answers import (
    FIDELITY_HEADERS,
    WARNINGS_HEADER,
    InPieces,
    json_response,
    result_headers,
)
from serve_app.api.openapi import upscale_responses
from serve_app.api.schemas import EXAMPLE_REPORT
from serve_app.client.upscaler import _result_of
from serve_app.contracts import FidelityReport, UpscaleRequest, UpscaleResult
from serve_app.testing import FakeUpscaler, photo_like, png_bytes

REPORT = FidelityReport.model_validate(EXAMPLE_REPORT | {"warnings": ["Tile 3 was given up."]})


async def result(report: FidelityReport | None) -> UpscaleResult:
    request = UpscaleRequest(image=png_bytes(photo_like(8, 8)), request_id="r")
    return (await FakeUpscaler().upscale(request)).model_copy(update={"report": report})


async def test_headers_tell_the_report() -> None:
    headers = result_headers(await result(REPORT))
    told = {name: headers[name] for name in FIDELITY_HEADERS}
    assert told["X-Fidelity-LR-PSNR"] == "46.2"
    assert {n: float(v) for n, v in told.items()} == {
        name: getattr(REPORT, field) for name, field in FIDELITY_HEADERS.items()
    }
    assert headers[WARNINGS_HEADER] == "1"


async def test_no_report_no_headers() -> None:
    assert not [name for name in result_headers(await result(None)) if "Fidelity" in name]


async def test_a_client_reads_the_report_back() -> None:
    for report in (REPORT, None):
        answer = json.loads(bytes(json_response(await result(report)).body))
        assert _result_of(answer).report == report
    del answer["report"]
    assert _result_of(answer).report is None


def test_every_header_is_documented() -> None:
    documented = upscale_responses()[200]["headers"]
    for name in (*FIDELITY_HEADERS, WARNINGS_HEADER):
        assert documented[name]["description"]


@pytest.mark.parametrize("length", [0, 1, 10, 95])
async def test_a_body_is_sent_in_pieces_and_its_length_told(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr("serve_app.api.answers._PIECE_BYTES", 10)
    body = bytes(range(length))
    app = InPieces(body, headers={"X-Seed": "1"}, media_type="image/png")
    sent: list[int] = []

    async def watched(scope, receive, send):  # type: ignore[no-untyped-def]
        async def note(message):  # type: ignore[no-untyped-def]
            sent.append(len(message.get("body", b"")))
            await send(message)

        await app(scope, receive, note)

    transport = httpx.ASGITransport(app=watched)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        answer = await client.get("/")
    assert (answer.content, answer.headers["X-Seed"]) == (body, "1")
    assert answer.headers["Content-Length"] == str(length)
    assert max(sent) <= 10
