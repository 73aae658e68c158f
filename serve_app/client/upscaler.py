"""A running Tessera server as an `Upscaler`: the same call, over HTTP.

Progress comes as server-sent events; problem documents become the errors of the tree again. It refuses to
know the server's code: what it reads is what any client would read.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import httpx

from serve_app import errors
from serve_app.client.connection import LONGEST_WAIT_S, Connection, ServerUnreachable, error_of
from serve_app.client.events import events_of
from serve_app.client.form import fields_of, files_of
from serve_app.client.records import Plan
from serve_app.contracts import (
    Progress,
    ProgressCallback,
    ResolvedParams,
    UpscaleParams,
    UpscaleRequest,
    UpscaleResult,
)

_FIRST_PAUSE_S = 0.5


class HttpUpscaler(Connection):
    """An `Upscaler` that asks a server; an async context manager.

    Args:
        server: Base URL, such as `http://localhost:8000`.
        busy_retries: Times that a request is sent again to a server that said when to try again.
        lost_retries: Times that it is sent again to a server that could not be reached.
        transport: For tests; None is the network.
        headers: Sent with each request.
        sleep: Waits before a retry; for tests.
    """

    def __init__(
        self,
        server: str,
        *,
        busy_retries: int = 5,
        lost_retries: int = 0,
        transport: httpx.AsyncBaseTransport | None = None,
        headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(server, transport, headers)
        self._busy_retries = busy_retries
        self._lost_retries = lost_retries
        self._sleep = sleep

    async def upscale(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None = None
    ) -> UpscaleResult:
        """Upscales one picture on the server; see `contracts.Upscaler`.

        A server that is full is asked again after the time that it asks for. Cancelling closes the
        connection, which cancels the work on the server.

        Raises:
            TesseraError: what the server answered.
            ServerUnreachable: no server, or not one that speaks Tessera.
            DeadlineExceeded: not finished within `request.timeout_s`.
        """
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._upscale(request, on_progress)
        except TimeoutError:
            raise errors.DeadlineExceeded(
                f"The server did not finish within {request.timeout_s:g} s."
            ) from None

    async def ready(self) -> bool:
        """True only when the server has a warm denoiser.

        Raises:
            ServerUnreachable: no server at all.
        """
        with self.translated():
            return (await self.http.get("/readyz")).status_code == HTTPStatus.OK

    async def plan(self, image: bytes, params: UpscaleParams, tenant: str) -> Plan:
        """Asks what a picture will cost; raises as `upscale` does."""
        with self.translated():
            response = await self.http.post(
                "/v1/plan",
                files={"image": ("image", image, "application/octet-stream")},
                data=fields_of(params),
                headers={"X-Tenant-Id": tenant},
            )
            await self.check(response)
            return Plan.model_validate(response.json())

    async def _upscale(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None
    ) -> UpscaleResult:
        busy, lost = 0, 0
        while True:
            try:
                return await self._upscale_once(request, on_progress)
            except ServerUnreachable:
                lost += 1
                if lost > self._lost_retries:
                    raise
                pause_s = _FIRST_PAUSE_S * 2 ** (lost - 1)
            except errors.TesseraError as error:
                busy += 1
                again = isinstance(error, errors.Busy) or error.retry_after_s is not None
                if not again or busy > self._busy_retries:
                    raise
                pause_s = error.retry_after_s or 1.0
            await self._sleep(min(pause_s, LONGEST_WAIT_S))

    async def _upscale_once(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None
    ) -> UpscaleResult:
        with self.translated():
            async with self.http.stream(
                "POST",
                "/v1/upscale",
                files=files_of(request),
                data=fields_of(request.params, request.priority),
                headers={
                    "Accept": "text/event-stream",
                    "X-Request-Id": request.request_id,
                    "X-Tenant-Id": request.tenant,
                },
            ) as response:
                await self.check(response)
                async for name, data, _ in events_of(response):
                    if name == "progress" and on_progress is not None:
                        on_progress(Progress.model_validate_json(data))
                    elif name == "result":
                        return _result_of(json.loads(data))
                    elif name == "error":
                        raise error_of(json.loads(data))
        raise ServerUnreachable(f"{self.server} closed the connection before the result.")


def _result_of(answer: dict[str, Any]) -> UpscaleResult:
    return UpscaleResult(
        image=base64.b64decode(answer["image_base64"]),
        timings_s={name: took_ms / 1000 for name, took_ms in answer["timings_ms"].items()},
        params=ResolvedParams.model_validate(answer["params"]),
        **{
            name: answer[name]
            for name, field in UpscaleResult.model_fields.items()
            if name not in ("image", "timings_s", "params")
            and (field.is_required() or name in answer)
        },
    )
