"""An `UpscaleResult` becomes a response: the picture itself, or JSON, with the headers of both.

It refuses to know how the choice between them was made (`negotiation`) and how a stream is sent (`events`).
"""

from __future__ import annotations

import base64
import re
from pathlib import PurePosixPath
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.api.pace import Pace
from serve_app.api.schemas import UpscaleAnswer
from serve_app.contracts import FidelityReport, UpscaleResult

FIDELITY_HEADERS = {
    "X-Fidelity-LR-PSNR": "lr_psnr_db",
    "X-Fidelity-Color-Error": "color_error_mean",
    "X-Fidelity-Color-Error-P99": "color_error_p99",
    "X-Fidelity-Edge-Agreement": "edge_agreement",
    "X-Fidelity-Seam-Energy": "seam_energy",
    "X-Fidelity-Strength": "fidelity",
    "X-Fidelity-Tiles-Retried": "tiles_retried",
    "X-Fidelity-Tiles-Replaced": "tiles_replaced",
}
"""The numbers of a `FidelityReport` that every answer's headers tell."""
WARNINGS_HEADER = "X-Fidelity-Warnings"
_LONGEST_NAME = 80
_PIECE_BYTES = 2**20


class InPieces(Response):
    """A body that is sent piece by piece, so that nobody on its way holds it whole."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        pace = Pace()
        for at in range(0, len(self.body), _PIECE_BYTES):
            piece = bytes(self.body[at : at + _PIECE_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await pace.after(piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def picture_response(result: UpscaleResult, filename: str) -> Response:
    """Sends the encoded picture.

    Args:
        result: What to send.
        filename: The upload's name on the caller's side; untrusted, may be empty.
    """
    headers = result_headers(result) | {"Content-Disposition": _disposition(result, filename)}
    return InPieces(result.image, headers=headers, media_type=result.media_type)


def json_response(result: UpscaleResult) -> Response:
    """Sends the result as JSON, the picture in base64."""
    body = answer_of(result).model_dump_json()
    return InPieces(body, headers=result_headers(result), media_type="application/json")


def answer_of(result: UpscaleResult) -> UpscaleAnswer:
    """Says the result in the words of the JSON answer."""
    facts = {
        name: getattr(result, name)
        for name in UpscaleAnswer.model_fields
        if name in type(result).model_fields
    }
    return UpscaleAnswer(
        image_base64=base64.b64encode(result.image).decode("ascii"),
        timings_ms={name: round(took_s * 1000, 3) for name, took_s in result.timings_s.items()},
        **facts,
    )


def result_headers(result: UpscaleResult) -> dict[str, str]:
    """What a caller may want to know without reading the body."""
    headers = {
        "X-Seed": str(result.params.seed),
        "X-Model": result.params.model,
        "X-Tiles": str(result.tiles),
        "Server-Timing": server_timing(result.timings_s),
        "Cache-Control": "no-store",
    }
    return headers if result.report is None else headers | fidelity_headers(result.report)


def fidelity_headers(report: FidelityReport) -> dict[str, str]:
    """The report's numbers, rounded to what they are worth, and how many warnings it has."""
    told = {name: f"{getattr(report, field):.5g}" for name, field in FIDELITY_HEADERS.items()}
    return told | {WARNINGS_HEADER: str(len(report.warnings))}


def server_timing(timings_s: dict[str, float]) -> str:
    """Formats stages as a Server-Timing header, ms; adds the total where the stages do not tell it."""
    stages = dict(timings_s)
    stages.setdefault("total", sum(timings_s.values()))
    return ", ".join(
        f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)};dur={took_s * 1000:.1f}"
        for name, took_s in stages.items()
    )


def _disposition(result: UpscaleResult, filename: str) -> str:
    """Names the picture after the upload: `photo.jpg` at scale 4 comes back as `photo-4x.png`."""
    stem = PurePosixPath(filename.replace("\\", "/")).stem
    stem = re.sub(r"[^\w .-]", "_", stem).strip(" .")[:_LONGEST_NAME] or "picture"
    scale = f"{result.width / result.source_width:.2f}".rstrip("0").rstrip(".")
    name = f"{stem}-{scale}x.{result.media_type.split('/')[1]}"
    plain = re.sub(r"[^A-Za-z0-9 ._-]", "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name)}"
    return f'inline; filename="{plain}"{extended}'
