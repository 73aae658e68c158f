"""A running Tessera server as an `Upscaler`: the same call, over HTTP.

Progress comes as server-sent events; problem documents become the errors of the tree again. It refuses to
know the server's code: what it reads is what any client would read.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self

import httpx

from serve_app import errors
from serve_app.contracts import (
    ModelInfo,
    Priority,
    Progress,
    ProgressCallback,
    ResolvedParams,
    UpscaleParams,
    UpscaleRequest,
    UpscaleResult,
)

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 120.0
"""The server breaks its silence every 15 s; a connection silent for this long is dead."""
LONGEST_WAIT_S = 60.0
"""A server that asks for more patience than this before a retry is asked again after this."""


class ServerUnreachable(errors.TesseraError):
    """The server does not answer, or what answers is not Tessera."""

    code = "server-unreachable"
    title = "Server unreachable"


class ServerEvent(NamedTuple):
    """One server-sent event."""

    name: str
    data: str
    id: str


class Connection:
    """A way to a server, and the one seam where the network's errors become the tree's.

    An async context manager.

    Args:
        server: Base URL, such as `http://localhost:8000`.
        transport: For tests; None is the network.
        headers: Sent with each request.
    """

    def __init__(
        self,
        server: str,
        transport: httpx.AsyncBaseTransport | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.server = server
        self.http = httpx.AsyncClient(
            base_url=server,
            timeout=httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
            transport=transport,
            headers=headers,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()

    async def models(self) -> list[ModelInfo]:
        """The server's models, the default first.

        Raises:
            ServerUnreachable: no server, or not one that speaks Tessera.
        """
        with self.translated():
            response = await self.http.get("/v1/models")
            await self.check(response)
            return [ModelInfo.model_validate(found) for found in response.json()["models"]]

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raises what the network and what is no Tessera do as ServerUnreachable."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise ServerUnreachable(f"{self.server} cannot be reached: {reason}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServerUnreachable(f"{self.server} does not speak Tessera: {error!r}") from error

    async def check(self, response: httpx.Response) -> None:
        """Raises the problem that a response tells, if it tells one."""
        if response.is_error:
            await response.aread()
            self._raise_problem(response)

    def _raise_problem(self, response: httpx.Response) -> NoReturn:
        if "problem+json" not in response.headers.get("Content-Type", ""):
            raise ServerUnreachable(
                f"{self.server} answered {response.status_code}, not as Tessera."
            )
        raise error_of(response.json())


class HttpUpscaler(Connection):
    """An `Upscaler` that asks a server; an async context manager.

    Args:
        server: Base URL, such as `http://localhost:8000`.
        busy_retries: Times that a request is sent again after a 429.
        transport: For tests; None is the network.
        sleep: Waits before a retry; for tests.
    """

    def __init__(
        self,
        server: str,
        *,
        busy_retries: int = 5,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(server, transport)
        self._busy_retries = busy_retries
        self._sleep = sleep

    async def upscale(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None = None
    ) -> UpscaleResult:
        """Upscales one picture on the server; see `contracts.Upscaler`.

        A 429 is retried after the time that the server asks for. Cancelling closes the connection, which
        cancels the work on the server.

        Raises:
            TesseraError: what the server answered.
            ServerUnreachable: no server, or not one that speaks Tessera.
            DeadlineExceeded: not finished within `request.timeout_s`.
        """
        try:
            async with asyncio.timeout(request.timeout_s):
                for _ in range(self._busy_retries):
                    try:
                        return await self._upscale_once(request, on_progress)
                    except errors.Busy as busy:
                        await self._sleep(min(busy.retry_after_s or 1.0, LONGEST_WAIT_S))
                return await self._upscale_once(request, on_progress)
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

    async def _upscale_once(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None
    ) -> UpscaleResult:
        with self.translated():
            async with self.http.stream(
                "POST",
                "/v1/upscale",
                files=_files_of(request),
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


def error_of(document: dict[str, Any]) -> errors.TesseraError:
    """Makes a problem document the error that it describes; its sentence tells all that a person needs."""
    code = document["type"].rsplit(":", 1)[-1]
    kind = _kinds(errors.TesseraError).get(code, errors.TesseraError)
    detail, allowed = document["detail"], document.get("allowed")
    if allowed is not None and allowed not in detail:
        detail = f"{detail}; allowed: {allowed}"
    return kind(
        f"{detail} (request {document['request_id']})",
        field=document.get("field"),
        allowed=allowed,
        retry_after_s=document.get("retry_after_s"),
    )


def _files_of(request: UpscaleRequest) -> dict[str, tuple[str, bytes, str]]:
    pictures = {f"control_image_{name}": data for name, data in request.control_images.items()}
    pictures["image"] = request.image
    return {name: (name, data, "application/octet-stream") for name, data in pictures.items()}


def fields_of(params: UpscaleParams, priority: Priority) -> dict[str, str]:
    """What is asked for, as a form's fields."""
    given = params.model_dump(mode="json", exclude_none=True)
    given["priority"] = priority.value
    return {n: json.dumps(v) if isinstance(v, list) else str(v) for n, v in given.items()}


def _kinds(root: type[errors.TesseraError]) -> dict[str, type[errors.TesseraError]]:
    found = {root.code: root}
    for kind in root.__subclasses__():
        found |= _kinds(kind)
    return found


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


def events_of(response: httpx.Response) -> AsyncIterator[ServerEvent]:
    """The server-sent events of a response that is being read; comments and unknown fields are passed over."""
    return _events(_lines(response.aiter_text()))


async def _lines(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """Lines as server-sent events end them; httpx would end them at U+2028 and its like, too."""
    parts: list[str] = []
    async for chunk in chunks:
        first, *rest = chunk.split("\n")
        parts.append(first)
        for part in rest:
            yield "".join(parts).removesuffix("\r")
            parts = [part]


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[ServerEvent]:
    name, data, last = "message", list[str](), ""
    async for line in lines:
        if not line:
            if data:
                yield ServerEvent(name, "\n".join(data), last)
            name, data = "message", []
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last = value
