"""The service of `tessera.proto`, before any `Upscaler`. It refuses to know where that runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import grpc

from serve_app.contracts import Progress, Upscaler
from serve_app.errors import TesseraError
from serve_app.rpc import tessera_pb2 as pb
from serve_app.rpc.translation import (
    models_message,
    progress_message,
    request_of,
    result_message,
    sentence_of,
    status_of,
)

log = logging.getLogger(__name__)


class Call(Protocol):
    """What is used of a call's context."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Sets the status."""
        ...

    def set_details(self, details: str) -> None:
        """Sets the sentence beside it."""
        ...


class UpscalerService:
    """Answers calls; one that fails ends with a status and a sentence.

    Args:
        upscaler: Makes each call.
    """

    def __init__(self, upscaler: Upscaler) -> None:
        self._upscaler = upscaler

    async def upscale(self, message: Any, call: Call, request_id: str) -> Any:
        """See `tessera.proto`."""
        with _answered(call, request_id):
            request = request_of(message, request_id)
            return result_message(await self._upscaler.upscale(request))

    async def upscale_with_progress(
        self, message: Any, call: Call, request_id: str
    ) -> AsyncIterator[Any]:
        """See `tessera.proto`; closing it gives the work up."""
        told: asyncio.Queue[Progress | None] = asyncio.Queue()
        with _answered(call, request_id):
            request = request_of(message, request_id)
            work = asyncio.create_task(self._upscaler.upscale(request, told.put_nowait))
            work.add_done_callback(lambda _: told.put_nowait(None))
            try:
                while (progress := await told.get()) is not None:
                    yield pb.UpscaleEvent(progress=progress_message(progress))
                yield pb.UpscaleEvent(result=result_message(await work))
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def models(self, message: Any, call: Call, request_id: str) -> Any:
        """See `tessera.proto`."""
        with _answered(call, request_id):
            return models_message(await self._upscaler.models())


@contextmanager
def _answered(call: Call, request_id: str) -> Iterator[None]:
    """What is raised becomes a status; it is raised on, for the server to end the call."""
    try:
        yield
    except TesseraError as error:
        call.set_code(status_of(error))
        call.set_details(sentence_of(error, request_id))
        raise
    except Exception:
        log.exception("rpc.failed", extra={"request_id": request_id})
        call.set_code(grpc.StatusCode.INTERNAL)
        call.set_details(f"Something went wrong; the server's log has it (request {request_id})")
        raise
