"""Sends what jobs have made: one file, or all of them as a ZIP that is never whole anywhere.

It refuses to know who made them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import PurePosixPath
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serve_app.api.answers import fidelity_headers, server_timing
from serve_app.api.pace import Pace
from serve_app.contracts import FidelityReport
from serve_app.errors import WrongState
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.records import ItemRecord, ResultRecord
from serve_app.jobs.states import ItemStatus
from serve_app.jobs.store import Store

_PAGE = 100
_LONGEST_NAME = 80


async def file_response(request: Request, blobs: Blobs, item: ItemRecord) -> Response:
    """Sends an item's result.

    Raises:
        WrongState: it has none.
        BlobMissing: its file is lost.
    """
    result = item.result
    if result is None:
        raise WrongState(f"the item {item.number} is {item.status} and has no result")
    headers = _told(result) | {"Content-Disposition": _disposition(result_name(item, result))}
    return await blob_response(request, blobs, result.blob, result.media_type, headers)


async def blob_response(
    request: Request, blobs: Blobs, name: str, media_type: str, headers: dict[str, str]
) -> Response:
    """Sends a blob, unless the client has it; raises BlobMissing before anything is sent."""
    tag = f'"{name}"'
    kept = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = [
        t.strip().removeprefix("W/") for t in request.headers.get("If-None-Match", "").split(",")
    ]
    if tag in known or known == ["*"]:
        return Response(status_code=304, headers=kept)
    pieces = blobs.stream(name)
    first = await anext(pieces, b"")

    async def body() -> AsyncIterator[bytes]:
        pace = Pace()
        yield first
        async for piece in pieces:
            yield piece
            await pace.after(piece)

    return StreamingResponse(body(), headers=headers | kept, media_type=media_type)


async def zip_response(store: Store, blobs: Blobs, job_id: str) -> Response:
    """Sends all results that are there.

    Raises:
        WrongState: there is none yet.
    """
    if not await store.items(job_id, ItemStatus.SUCCEEDED, limit=1):
        raise WrongState("the job has no result yet")
    headers = {
        "Content-Disposition": f'attachment; filename="{job_id}.zip"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(
        _zipped(store, blobs, job_id), headers=headers, media_type="application/zip"
    )


class _Sink:
    """A file that can only be written; what was written is taken away."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def take(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held


async def _zipped(store: Store, blobs: Blobs, job_id: str) -> AsyncIterator[bytes]:
    sink, after, used, pace = _Sink(), -1, set[str](), Pace()
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]
        while page := await store.items(job_id, ItemStatus.SUCCEEDED, after, _PAGE):
            for item in page:
                if item.result is None:
                    continue
                entry = _entry(item, item.result, used)
                with archive.open(entry, "w") as file:
                    async for piece in blobs.stream(item.result.blob):
                        file.write(piece)
                        yield sink.take()
                        await pace.after(piece)
                after = item.number
    yield sink.take()


def _entry(item: ItemRecord, result: ResultRecord, used: set[str]) -> zipfile.ZipInfo:
    """Names an entry as no other is, whatever a disk thinks of capitals."""
    name = result_name(item, result)
    if name.lower() in used:
        name = f"{item.number}-{name}"
    while name.lower() in used:
        name = f"_{name}"
    used.add(name.lower())
    when = datetime.fromtimestamp(max(item.finished_at or 0, 315619200), UTC)  # ZIP begins in 1980
    entry = zipfile.ZipInfo(name, when.timetuple()[:6])
    entry.file_size = result.size_bytes
    return entry


def result_name(item: ItemRecord, result: ResultRecord) -> str:
    """Names a result after its source: `photo.jpg` at scale 4 comes back as `photo-4x.png`."""
    stem = re.sub(r"[^\w .-]", "_", PurePosixPath(item.name).stem).strip(" .")[:_LONGEST_NAME]
    source_width = result.details.get("source_width") or result.width
    scale = f"{result.width / source_width:.2f}".rstrip("0").rstrip(".")
    return f"{stem or 'picture'}-{scale}x.{result.media_type.split('/')[1]}"


def _disposition(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9 ._-]", "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name)}"
    return f'inline; filename="{plain}"{extended}'


def _told(result: ResultRecord) -> dict[str, str]:
    """What `POST /v1/upscale` tells in headers."""
    details = result.details
    params = details.get("params", {})
    told = {
        "X-Seed": params.get("seed"),
        "X-Model": params.get("model"),
        "X-Tiles": details.get("tiles"),
    }
    headers = {name: str(value) for name, value in told.items() if value is not None}
    if details.get("timings_s"):
        headers["Server-Timing"] = server_timing(details["timings_s"])
    if details.get("report"):
        headers |= fidelity_headers(FidelityReport.model_validate(details["report"]))
    return headers
