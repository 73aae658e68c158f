"""Jobs of a server: submitted, followed without a gap, fetched whole or not at all.

While a job is followed or fetched, a server that is away is waited for: jobs outlive it. Jobs, items and events
are the JSON that the server sends. It refuses to know the server's code and what a person is shown.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from serve_app.client.connection import LONGEST_WAIT_S, Connection, ServerUnreachable
from serve_app.client.events import events_of
from serve_app.client.records import ENDED
from serve_app.client.upload import Submission, body_of
from serve_app.errors import BlobFailed, NotFound, RequestError, TesseraError

Json = dict[str, Any]
T = TypeVar("T")

PATIENCE_S = 300.0
"""Seconds that a server may be away while it is waited for."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 15.0
_PIECE_BYTES = 2**20
_PAGE = 1000
_PATH = "/v1/jobs"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened in a job; sequence numbers go from 1 without a gap."""

    sequence: int
    kind: str
    data: Json


class JobsClient(Connection):
    """A server's jobs; an async context manager.

    Args:
        server: Base URL, such as `http://localhost:8000`.
        tenant: On whose behalf; None leaves that to the server.
        transport: For tests; None is the network.
        headers: Sent with each request.
        sleep: Waits for a server that is away; for tests.
        patience_s: For how long in all.
    """

    def __init__(
        self,
        server: str,
        *,
        tenant: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience_s: float = PATIENCE_S,
    ) -> None:
        told = {} if tenant is None else {"X-Tenant-Id": tenant}
        super().__init__(server, transport, {**(headers or {}), **told})
        self._sleep = sleep
        self._patience_s = patience_s

    async def offered(self) -> bool:
        """Whether the server has jobs at all; raises ServerUnreachable."""
        try:
            await self._ask("GET", "", limit=1)
        except NotFound:
            return False
        return True

    async def submit(self, submission: Submission) -> Json:
        """Sends pictures as one job, of which a piece at a time is in memory.

        A server that goes away meanwhile is sent all of it again under the same key.

        Raises:
            OSError: a file cannot be read.
            TesseraError: what the server answered.
        """

        async def send() -> Json:
            boundary = uuid.uuid4().hex
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Idempotency-Key": submission.key,
            }
            with self.translated():
                body = body_of(submission, boundary)
                response = await self.http.post(_PATH, content=body, headers=headers)
                await self.check(response)
                return _object(response.json())

        return await self._patiently(send)

    async def jobs(self, status: str | None = None, most: int = 50) -> list[Json]:
        """The newest jobs, newest first."""
        found: list[Json] = []
        cursor: str | None = None
        while len(found) < most:
            limit = min(500, most - len(found))
            page = await self._ask("GET", "", status=status, cursor=cursor, limit=limit)
            with self.translated():
                found += page["jobs"]
                cursor = page["next_cursor"]
            if cursor is None:
                break
        return found

    async def job(self, job_id: str) -> Json:
        """A job as it stands; raises NotFound."""
        return await self._ask("GET", _of(job_id))

    async def cancel(self, job_id: str) -> Json:
        """Gives a job up; raises NotFound."""
        return await self._ask("DELETE", _of(job_id))

    async def retry(self, job_id: str) -> Json:
        """Has failed and cancelled items tried again; raises NotFound."""
        return await self._ask("POST", f"{_of(job_id)}/retry")

    async def items(self, job_id: str, status: str | None = None) -> AsyncIterator[Json]:
        """A job's items in order; a server that is away is waited for."""
        after: int | None = -1
        while after is not None:
            found, after = await self._items(job_id, status, after, _PAGE)
            for item in found:
                yield item

    async def item(self, job_id: str, number: int) -> Json:
        """One item; a server that is away is waited for. Raises NotFound."""
        found, _ = await self._items(job_id, None, number - 1, 1)
        for item in found:
            if item["number"] == number:
                return item
        raise NotFound(f"the job {job_id} has no item {number}")

    async def events(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        """What happens in a job, each event once and in order, until it has ended.

        A connection that breaks is made again behind the last event.

        Args:
            job_id: Which.
            after: Sequence number of the last event that is known already.

        Raises:
            ServerUnreachable: the server was away for too long.
            NotFound: no such job, or no longer.
        """
        patience = _Patience(self._sleep, self._patience_s)
        while True:
            try:
                async with aclosing(self._stream(job_id, after)) as stream:  # type: ignore[type-var]
                    async for event in stream:
                        if event.sequence <= after:
                            continue
                        if event.sequence > after + 1:
                            left_out = f"event {after + 1} of {job_id}"
                            raise ServerUnreachable(f"{self.server} left out {left_out}.")
                        patience.renew()
                        after = event.sequence
                        yield event
                job = await self.job(job_id)
                if job["status"] in ENDED and job["last_event"] <= after:
                    return
                error: TesseraError = ServerUnreachable(
                    f"{self.server} closed the connection before the job had ended."
                )
            except TesseraError as found:
                error = found
            await patience.wait(error)

    async def download(self, job_id: str, number: int, target: Path) -> None:
        """Writes an item's result to a file, checked against its digest; a server that is away is waited for.

        Raises:
            WrongState: it has none.
            OSError: as the file system says.
        """
        await self._patiently(lambda: self._save(f"{_of(job_id)}/results/{number}", target))

    async def download_all(self, job_id: str, target: Path) -> None:
        """Writes all results that are there to a file as a ZIP; see `download`."""
        await self._patiently(lambda: self._save(f"{_of(job_id)}/results", target))

    async def _ask(self, method: str, path: str, **query: str | int | None) -> Json:
        given = {name: value for name, value in query.items() if value is not None}
        with self.translated():
            response = await self.http.request(method, _PATH + path, params=given)
            await self.check(response)
            return _object(response.json())

    async def _items(
        self, job_id: str, status: str | None, after: int, limit: int
    ) -> tuple[list[Json], int | None]:
        query = {"status": status, "after": after, "limit": limit}
        page = await self._patiently(lambda: self._ask("GET", f"{_of(job_id)}/items", **query))
        with self.translated():
            return page["items"], page["next_after"]

    async def _stream(self, job_id: str, after: int) -> AsyncIterator[JobEvent]:
        path, headers = f"{_PATH}{_of(job_id)}/events", {"Last-Event-ID": str(after)}
        with self.translated():
            async with self.http.stream("GET", path, headers=headers) as response:
                await self.check(response)
                async for name, data, sequence in events_of(response):
                    yield JobEvent(int(sequence), name, _object(json.loads(data)))

    async def _save(self, path: str, target: Path) -> None:
        with self.translated():
            async with self.http.stream("GET", _PATH + path) as response:
                await self.check(response)
                tag = re.fullmatch(r'(?:W/)?"([0-9a-f]{64})"', response.headers.get("ETag", ""))
                pieces = response.aiter_bytes(_PIECE_BYTES)
                if not await _write(pieces, target, tag[1] if tag else None):
                    raise ServerUnreachable(f"{self.server} sent {target.name} damaged.")

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        patience = _Patience(self._sleep, self._patience_s)
        while True:
            try:
                return await call()
            except TesseraError as error:
                await patience.wait(error)


class _Patience:
    """Waits longer each time for a server that is away, until it has been waited for long enough."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]], longest_s: float) -> None:
        self._sleep = sleep
        self._longest_s = longest_s
        self.renew()

    def renew(self) -> None:
        """It is there again."""
        self._pause_s, self._waited_s = _FIRST_PAUSE_S, 0.0

    async def wait(self, error: TesseraError) -> None:
        """Waits, or raises what waiting does not mend, or has not mended."""
        if isinstance(error, RequestError | BlobFailed) or self._waited_s >= self._longest_s:
            raise error
        pause_s = self._pause_s * random.uniform(0.75, 1.25)  # not all clients at once
        pause_s = max(pause_s, min(error.retry_after_s or 0.0, LONGEST_WAIT_S))
        await self._sleep(pause_s)
        self._waited_s += pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


async def _write(pieces: AsyncIterator[bytes], target: Path, expected: str | None) -> bool:
    """Writes a file under another name first; False, and no file, where its digest is not the expected."""
    await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with await asyncio.to_thread(part.open, "wb") as file:
            async for piece in pieces:
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
        if expected not in (None, digest.hexdigest()):
            return False
        await asyncio.to_thread(part.replace, target)
    finally:
        part.unlink(missing_ok=True)
    return True


def _of(job_id: str) -> str:
    return "/" + quote(job_id, safe="")


def _object(found: Any) -> Json:
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return found
