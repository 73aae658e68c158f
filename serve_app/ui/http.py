"""A `Backend` that asks a server's `/v1`, with its durable jobs.

It refuses to know the server's code: what it reads is what any client would read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from serve_app.client.connection import (
    CONNECT_TIMEOUT_S,
    SILENCE_TIMEOUT_S,
    ServerUnreachable,
    error_of,
)
from serve_app.contracts import Priority, UpscaleParams
from serve_app.ui.backend import Item, Job, Offer, Plan, Told

_MOST_ITEMS = 1000


class HttpBackend:
    """See `backend.Backend`.

    Args:
        server: Base URL, such as `http://127.0.0.1:8000`.
        transport: For tests; None is the network.
    """

    def __init__(self, server: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._server = server
        timeout = httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None)
        limits = httpx.Limits(max_connections=None)  # a follower holds one as long as its job runs
        self._http = httpx.AsyncClient(
            base_url=server, timeout=timeout, limits=limits, transport=transport, trust_env=False
        )

    async def offer(self) -> Offer:
        """See `backend.Backend`."""
        return Offer.model_validate(await self._json("GET", "/v1/models"))

    async def plan(self, picture: Path, params: UpscaleParams, tenant: str) -> Plan:
        """See `backend.Backend`."""
        with picture.open("rb") as file:
            files = [("image", (picture.name, file, "application/octet-stream"))]
            found = await self._json("POST", "/v1/plan", tenant, files=files, data=_form(params))
        return Plan.model_validate(found)

    async def submit(
        self, pictures: Sequence[Path], params: UpscaleParams, priority: Priority, tenant: str
    ) -> Job:
        """See `backend.Backend`."""
        with ExitStack() as opened:
            files = [
                (
                    "archive" if path.suffix.lower() == ".zip" else "images",
                    (path.name, opened.enter_context(path.open("rb")), "application/octet-stream"),
                )
                for path in pictures
            ]
            data = _form(params) | {"priority": priority.value}
            return Job.model_validate(
                await self._json("POST", "/v1/jobs", tenant, files=files, data=data)
            )

    async def job(self, job_id: str, tenant: str) -> Job:
        """See `backend.Backend`."""
        return Job.model_validate(await self._json("GET", f"/v1/jobs/{job_id}", tenant))

    async def items(self, job_id: str, tenant: str) -> list[Item]:
        """See `backend.Backend`."""
        query = {"limit": _MOST_ITEMS}
        page = await self._json("GET", f"/v1/jobs/{job_id}/items", tenant, params=query)
        return [Item.model_validate(found) for found in page["items"]]

    async def follow(self, job_id: str, tenant: str) -> AsyncIterator[Told]:
        """See `backend.Backend`."""
        async with self._stream(f"/v1/jobs/{job_id}/events", tenant) as response:
            kind = ""
            async for line in response.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    kind = value
                elif field == "data":
                    yield Told(kind=kind, data=json.loads(value))

    async def preview(self, job_id: str, number: int, tenant: str) -> bytes | None:
        """See `backend.Backend`."""
        with self._translated():
            response = await self._http.get(
                f"/v1/jobs/{job_id}/items/{number}/preview", headers=_headers(tenant)
            )
        return response.content if response.status_code == HTTPStatus.OK else None

    async def result(self, job_id: str, number: int, tenant: str, target: Path) -> None:
        """See `backend.Backend`."""
        await self._save(f"/v1/jobs/{job_id}/results/{number}", tenant, target)

    async def archive(self, job_id: str, tenant: str, target: Path) -> None:
        """See `backend.Backend`."""
        await self._save(f"/v1/jobs/{job_id}/results", tenant, target)

    async def cancel(self, job_id: str, tenant: str) -> Job:
        """See `backend.Backend`."""
        return Job.model_validate(await self._json("DELETE", f"/v1/jobs/{job_id}", tenant))

    async def retry(self, job_id: str, tenant: str) -> Job:
        """See `backend.Backend`."""
        return Job.model_validate(await self._json("POST", f"/v1/jobs/{job_id}/retry", tenant))

    async def _json(self, method: str, path: str, tenant: str = "", **asked: Any) -> Any:
        with self._translated():
            response = await self._http.request(method, path, headers=_headers(tenant), **asked)
            _check(response)
            return response.json()

    async def _save(self, path: str, tenant: str, target: Path) -> None:
        async with self._stream(path, tenant) as response:
            with target.open("wb") as file:
                async for piece in response.aiter_bytes():
                    file.write(piece)

    @asynccontextmanager
    async def _stream(self, path: str, tenant: str) -> AsyncIterator[httpx.Response]:
        with self._translated():
            async with self._http.stream("GET", path, headers=_headers(tenant)) as response:
                if response.is_error:
                    await response.aread()
                _check(response)
                yield response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one seam where the network's errors become the tree's."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise ServerUnreachable(f"{self._server} cannot be reached: {reason}") from error


def _headers(tenant: str) -> dict[str, str]:
    return {"X-Tenant-Id": tenant} if tenant else {}


def _form(params: UpscaleParams) -> dict[str, str]:
    given = params.model_dump(mode="json", exclude_none=True)
    return {n: json.dumps(v) if isinstance(v, list) else str(v) for n, v in given.items()}


def _check(response: httpx.Response) -> None:
    if not response.is_error:
        return
    if "problem+json" not in response.headers.get("Content-Type", ""):
        raise ServerUnreachable(f"The server answered {response.status_code}, not as Tessera.")
    raise error_of(response.json())
