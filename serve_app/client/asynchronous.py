"""The client for programs that have an event loop, and the one core of both clients.

It puts `HttpUpscaler` and `JobsClient` under the names that callers expect, and refuses to know HTTP.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import httpx

from serve_app.client.jobs import JobEvent, JobsClient
from serve_app.client.options import Options
from serve_app.client.pictures import (
    Named,
    PictureLike,
    Upscaled,
    all_bytes_of,
    bytes_of,
    file_name,
    part_of,
)
from serve_app.client.records import Item, Job, Plan
from serve_app.client.upload import Submission
from serve_app.client.upscaler import HttpUpscaler
from serve_app.contracts import (
    DEFAULT_TENANT,
    ModelInfo,
    Priority,
    ProgressCallback,
    UpscaleParams,
    UpscaleRequest,
)

DEFAULT_SERVER = "http://127.0.0.1:8000"


class AsyncClient:
    """A running Tessera server; an async context manager.

    A server that is full is asked again when it says, one that cannot be reached after a growing pause, each
    at most `retries` times: the same request and seed make the same picture, so nothing is done twice.

    Args:
        server: Base URL.
        tenant: On whose behalf; None is the server's default tenant.
        headers: Sent with each request, as `{"Authorization": ...}` for what stands before the server.
        timeout_s: For one picture, all retries together; None waits as long as the server lets it.
        retries: Times that a request is sent again.
        transport: For tests; None is the network.
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
        self._tenant = tenant or DEFAULT_TENANT
        self._timeout_s = timeout_s
        self._upscaler = HttpUpscaler(
            server, busy_retries=retries, lost_retries=retries, transport=transport, headers=headers
        )
        self._jobs = JobsClient(server, tenant=tenant, transport=transport, headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes its connections."""
        await self._upscaler.http.aclose()
        await self._jobs.http.aclose()

    async def upscale(
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
        """Upscales one picture. Cancelling the call gives the work up on the server.

        Args:
            picture: A path, bytes, a binary file or a Pillow image.
            control_images: Pictures of the caller's own for controls, by their names.
            priority: `interactive`, or `batch`, which yields to it.
            request_id: For logs; drawn if None.
            timeout_s: Instead of the client's.
            on_progress: Called with each `Progress`.
            **options: `scale=4`, `preset="photo"` and so on: `UpscaleParams`.

        Raises:
            TesseraError: what the server answered: `InvalidParameter`, `UnsupportedImage`, `Busy` ...
            ServerUnreachable: no server, or not one that speaks Tessera.
            OSError: the picture cannot be read.
        """
        request = UpscaleRequest(
            image=await bytes_of(picture),
            control_images=await all_bytes_of(control_images),
            params=UpscaleParams.parse(options),
            priority=Priority(priority),
            tenant=self._tenant,
            request_id=request_id or uuid.uuid4().hex,
            timeout_s=timeout_s or self._timeout_s,
        )
        return Upscaled(**dict(await self._upscaler.upscale(request, on_progress)))

    async def plan(self, picture: PictureLike, **options: Unpack[Options]) -> Plan:
        """Says what a picture will cost, without computing it; raises as `upscale` does."""
        params = UpscaleParams.parse(options)
        return await self._upscaler.plan(await bytes_of(picture), params, self._tenant)

    async def models(self) -> list[ModelInfo]:
        """The models that can be asked for, the default first; raises ServerUnreachable."""
        return await self._upscaler.models()

    async def ready(self) -> bool:
        """True only when the server has a warm denoiser; raises ServerUnreachable."""
        return await self._upscaler.ready()

    async def submit(
        self,
        pictures: Sequence[PictureLike | Named],
        *,
        control_images: Mapping[str, PictureLike] | None = None,
        priority: str = "batch",
        key: str | None = None,
        webhook_url: str | None = None,
        **options: Unpack[Options],
    ) -> AsyncJob:
        """Makes pictures one durable job, which survives this program and restarts of the server.

        Args:
            pictures: As `upscale` takes them, in this order; files are read while they are sent.
            control_images: Of all of them.
            priority: See `upscale`.
            key: Submitted twice under one key, it is one job; drawn if None.
            webhook_url: Told when it has ended.
            **options: Of all of them; see `upscale`.

        Raises:
            TesseraError: what the server answered.
            OSError: a picture cannot be read.
        """
        submission = Submission(
            [await part_of(picture, number) for number, picture in enumerate(pictures)],
            UpscaleParams.parse(options),
            await all_bytes_of(control_images),
            Priority(priority),
            key or uuid.uuid4().hex,
            webhook_url,
        )
        return AsyncJob(self._jobs, Job.model_validate(await self._jobs.submit(submission)))

    async def job(self, job_id: str) -> AsyncJob:
        """A job by its id; raises NotFound."""
        return AsyncJob(self._jobs, Job.model_validate(await self._jobs.job(job_id)))

    async def jobs(self, status: str | None = None, most: int = 50) -> list[AsyncJob]:
        """The newest jobs, newest first."""
        found = await self._jobs.jobs(status, most)
        return [AsyncJob(self._jobs, Job.model_validate(job)) for job in found]


class AsyncJob:
    """A job on a server, as it was last seen. While it is waited for, a server that is away is waited for.

    Args:
        jobs: The server's jobs.
        record: The job.
    """

    def __init__(self, jobs: JobsClient, record: Job) -> None:
        self._jobs = jobs
        self.record = record

    @property
    def id(self) -> str:
        """By which `client.job` finds it again."""
        return self.record.id

    @property
    def status(self) -> str:
        """Of the job, when it was last seen."""
        return self.record.status

    async def refresh(self) -> Job:
        """Looks again."""
        return await self._seen(self._jobs.job(self.id))

    async def cancel(self) -> Job:
        """Gives it up; what is finished stays."""
        return await self._seen(self._jobs.cancel(self.id))

    async def retry(self) -> Job:
        """Has failed and cancelled pictures tried again."""
        return await self._seen(self._jobs.retry(self.id))

    def events(self, after: int = 0) -> AsyncIterator[JobEvent]:
        """What happens, each event once and in order, until it has ended; see `JobsClient.events`."""
        return self._jobs.events(self.id, after)

    async def wait(self, on_event: Callable[[JobEvent], None] | None = None) -> Job:
        """Waits until it has ended, and says how."""
        async for event in self.events():
            if on_event is not None:
                on_event(event)
        return await self.refresh()

    async def items(self, status: str | None = None) -> list[Item]:
        """Its pictures in order."""
        return [Item.model_validate(item) async for item in self._jobs.items(self.id, status)]

    async def download(self, folder: str | Path) -> list[Path]:
        """Writes the results that are there into a folder, each under its picture's name.

        Of two pictures of one name, the later one's number is put behind it. Each file is checked against its
        digest, and there whole or not at all.

        Raises:
            OSError: as the file system says.
        """
        paths: list[Path] = []
        for item in await self.items("succeeded"):
            if item.result is not None:
                path = Path(folder, file_name(item.name, item.result.media_type))
                if path in paths:
                    path = path.with_name(f"{path.stem}-{item.number}{path.suffix}")
                await self._jobs.download(self.id, item.number, path)
                paths.append(path)
        return paths

    async def download_zip(self, target: str | Path) -> Path:
        """Writes all results that are there as one ZIP."""
        path = Path(target)
        await self._jobs.download_all(self.id, path)
        return path

    async def _seen(self, asked: Awaitable[object]) -> Job:
        self.record = Job.model_validate(await asked)
        return self.record
