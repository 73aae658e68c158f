"""The client for programs without an event loop: `AsyncClient`'s calls, made on a loop of its own.

It adds no behaviour. It refuses to know what is called.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from serve_app.client.asynchronous import DEFAULT_SERVER, AsyncClient, AsyncJob
from serve_app.client.jobs import JobEvent
from serve_app.client.options import Options
from serve_app.client.pictures import Named, PictureLike, Upscaled
from serve_app.client.records import Item, Job, Plan
from serve_app.contracts import ModelInfo, ProgressCallback

T = TypeVar("T")


class _Loop:
    """An event loop on a thread; what waits for it can be interrupted."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="tessera-client", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for `work`; Ctrl-C gives it up."""
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def each(self, found: AsyncIterator[T]) -> Iterator[T]:
        """What an async iterator gives, as it comes."""

        async def next_one() -> tuple[T, ...]:
            try:
                return (await anext(found),)
            except StopAsyncIteration:
                return ()

        async def end() -> None:
            close = getattr(found, "aclose", None)
            if close is not None:
                await close()

        try:
            while given := self.run(next_one()):
                yield given[0]
        finally:
            self.run(end())

    def close(self) -> None:
        """Ends the thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class Client:
    """A running Tessera server; a context manager. See `AsyncClient` for every argument and error.

    It may be shared by threads. Callbacks are called on a thread of the client's own.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        tenant: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        retries: int = 5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = AsyncClient(
            server,
            tenant=tenant,
            headers=headers,
            timeout_s=timeout_s,
            retries=retries,
            transport=transport,
        )
        self._loop = _Loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections; may be called twice."""
        try:
            self._loop.run(self._client.close())
        except RuntimeError:
            return
        self._loop.close()

    def upscale(
        self,
        picture: PictureLike,
        *,
        control_images: Mapping[str, PictureLike] | None = None,
        priority: str = "interactive",
        request_id: str | None = None,
        timeout_s: float | None = None,
        on_progress: ProgressCallback | None = None,
        **options: Unpack[Options],
    ) -> Upscaled:
        """Upscales one picture; see `AsyncClient.upscale`. Ctrl-C gives the work up on the server."""
        return self._loop.run(
            self._client.upscale(
                picture,
                control_images=control_images,
                priority=priority,
                request_id=request_id,
                timeout_s=timeout_s,
                on_progress=on_progress,
                **options,
            )
        )

    def plan(self, picture: PictureLike, **options: Unpack[Options]) -> Plan:
        """Says what a picture will cost; see `AsyncClient.plan`."""
        return self._loop.run(self._client.plan(picture, **options))

    def models(self) -> list[ModelInfo]:
        """The models that can be asked for, the default first."""
        return self._loop.run(self._client.models())

    def ready(self) -> bool:
        """True only when the server has a warm denoiser."""
        return self._loop.run(self._client.ready())

    def submit(
        self,
        pictures: Sequence[PictureLike | Named],
        *,
        control_images: Mapping[str, PictureLike] | None = None,
        priority: str = "batch",
        key: str | None = None,
        webhook_url: str | None = None,
        **options: Unpack[Options],
    ) -> ClientJob:
        """Makes pictures one durable job; see `AsyncClient.submit`."""
        work = self._client.submit(
            pictures,
            control_images=control_images,
            priority=priority,
            key=key,
            webhook_url=webhook_url,
            **options,
        )
        return ClientJob(self._loop, self._loop.run(work))

    def job(self, job_id: str) -> ClientJob:
        """A job by its id; raises NotFound."""
        return ClientJob(self._loop, self._loop.run(self._client.job(job_id)))

    def jobs(self, status: str | None = None, most: int = 50) -> list[ClientJob]:
        """The newest jobs, newest first."""
        found = self._loop.run(self._client.jobs(status, most))
        return [ClientJob(self._loop, job) for job in found]


class ClientJob:
    """A job on a server, as it was last seen; see `AsyncJob`."""

    def __init__(self, loop: _Loop, job: AsyncJob) -> None:
        self._loop = loop
        self._job = job

    @property
    def id(self) -> str:
        """By which `client.job` finds it again."""
        return self._job.id

    @property
    def status(self) -> str:
        """Of the job, when it was last seen."""
        return self._job.status

    @property
    def record(self) -> Job:
        """The job, when it was last seen."""
        return self._job.record

    def refresh(self) -> Job:
        """Looks again."""
        return self._loop.run(self._job.refresh())

    def cancel(self) -> Job:
        """Gives it up; what is finished stays."""
        return self._loop.run(self._job.cancel())

    def retry(self) -> Job:
        """Has failed and cancelled pictures tried again."""
        return self._loop.run(self._job.retry())

    def events(self, after: int = 0) -> Iterator[JobEvent]:
        """What happens, each event once and in order, until it has ended."""
        return self._loop.each(self._job.events(after))

    def wait(self, on_event: Callable[[JobEvent], None] | None = None) -> Job:
        """Waits until it has ended, and says how."""
        return self._loop.run(self._job.wait(on_event))

    def items(self, status: str | None = None) -> list[Item]:
        """Its pictures in order."""
        return self._loop.run(self._job.items(status))

    def download(self, folder: str | Path) -> list[Path]:
        """Writes the results that are there into a folder; see `AsyncJob.download`."""
        return self._loop.run(self._job.download(folder))

    def download_zip(self, target: str | Path) -> Path:
        """Writes all results that are there as one ZIP."""
        return self._loop.run(self._job.download_zip(target))
