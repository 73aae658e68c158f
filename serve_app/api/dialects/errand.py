"""One picture of a dialect's request, run directly, or as a job where its caller wants to see it grow.

Previews are made where tiles are kept, which is in jobs. It refuses to know dialects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from serve_app.api.jobs.desk import Desk
from serve_app.api.jobs.gathering import Draft, Gathered
from serve_app.api.jobs.submission import Order, take_in
from serve_app.contracts import Progress, ProgressCallback, Upscaler, UpscaleRequest
from serve_app.errors import BlobMissing, TesseraError, WrongState, kind_of
from serve_app.jobs.planning import look
from serve_app.jobs.records import Event, Json
from serve_app.settings import Settings

OnPreview = Callable[[bytes], None]
"""Takes a small JPEG of the tiles that are there."""


@dataclass(frozen=True, slots=True)
class Made:
    """A finished picture: the encoded file, its size, px, and its place on this server if it has one."""

    image: bytes
    media_type: str
    width: int
    height: int
    path: str | None = None


class Errands:
    """Runs pictures.

    Args:
        upscaler: Makes them.
        desk: The way to jobs; None where there are none.
        settings: Limits.
    """

    def __init__(self, upscaler: Upscaler, desk: Desk | None, settings: Settings) -> None:
        self._upscaler = upscaler
        self._desk = desk
        self._settings = settings
        self._giving_up: set[asyncio.Task[object]] = set()

    @property
    def keeps(self) -> bool:
        """Whether a result can be fetched later, by its path."""
        return self._desk is not None

    async def run(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None = None
    ) -> Made:
        """Runs a picture directly; raises as `Upscaler.upscale`."""
        made = await self._upscaler.upscale(request, on_progress)
        return Made(made.image, made.media_type, made.width, made.height)

    async def run_seen(
        self,
        request: UpscaleRequest,
        on_progress: ProgressCallback | None = None,
        on_preview: OnPreview | None = None,
    ) -> Made:
        """Runs a picture as a job of its own, with previews; directly, without them, where there are no jobs.

        Raises:
            TesseraError: as `Upscaler.upscale`; WrongState where the job was given up by somebody.
        """
        if self._desk is None:
            return await self.run(request, on_progress)
        desk = self._desk
        job_id = await self._submit(desk, request)
        try:
            await self._follow(desk, job_id, on_progress, on_preview)
        except BaseException:
            self._give_up(desk, job_id)
            raise
        return await self._made(desk, job_id)

    async def _submit(self, desk: Desk, request: UpscaleRequest) -> str:
        seen = await asyncio.to_thread(look, request.image, self._settings.images)
        source = await desk.keep(request.image)
        given = request.params.model_dump(mode="json", exclude_none=True)
        found = Gathered([Draft("picture", source, seen=seen)], given)
        order = Order(request.tenant, request.request_id, request.priority)
        job, _ = await take_in(found, order, self._upscaler, desk, self._settings)
        return job.id

    async def _follow(
        self,
        desk: Desk,
        job_id: str,
        on_progress: ProgressCallback | None,
        on_preview: OnPreview | None,
    ) -> None:
        job = await (await desk.store()).job(job_id)
        async with aclosing((await desk.hub()).follow(job)) as tale:  # type: ignore[type-var]
            async for told in tale:
                for event in (one.event for one in told):
                    if event.kind == "item.progress" and on_progress is not None:
                        on_progress(_progress(event))
                    elif event.kind == "item.preview" and on_preview is not None:
                        await _show(desk, event.data["blob"], on_preview)

    def _give_up(self, desk: Desk, job_id: str) -> None:
        """Cancels a job whose caller is gone; whoever is being cancelled does not wait for it."""

        async def cancel() -> object:
            return await (await desk.store()).cancel(job_id)

        ending: asyncio.Task[object] = asyncio.create_task(cancel())
        self._giving_up.add(ending)
        ending.add_done_callback(self._giving_up.discard)

    async def _made(self, desk: Desk, job_id: str) -> Made:
        item = await (await desk.store()).item(job_id, 0)
        result = item.result
        if result is None:
            raise error_of(item.error) if item.error else WrongState("The request was given up.")
        path = f"/v1/jobs/{job_id}/results/0"
        image = await desk.blobs.get(result.blob)
        return Made(image, result.media_type, result.width, result.height, path)


def _progress(event: Event) -> Progress:
    """In a job tiles are counted, and steps are not."""
    done, total = event.data["tiles_done"], event.data["tiles_total"]
    return Progress(
        stage="denoise", tiles_done=done, tiles_total=total, steps_done=done, steps_total=total
    )


async def _show(desk: Desk, blob: str, on_preview: OnPreview) -> None:
    try:
        on_preview(await desk.blobs.get(blob))
    except BlobMissing:  # a newer one took its place
        return


def error_of(problem: Json) -> TesseraError:
    """The error that a job's item was given up for, from the members of its problem document."""
    kind = kind_of(str(problem["type"]).rsplit(":", 1)[-1])
    facts = {"field": problem.get("field"), "allowed": problem.get("allowed")}
    return kind(problem["detail"], **facts)
