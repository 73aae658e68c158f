"""A `Backend` on an `Upscaler`, without durable jobs: for one process, and for servers that run no jobs.

Its jobs are as old as the process. It refuses to know where the upscaler runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serve_app.contracts import (
    Priority,
    Progress,
    UpscaleParams,
    Upscaler,
    UpscaleRequest,
    UpscaleResult,
    resolve,
)
from serve_app.errors import NotFound, TesseraError, TooLarge, WrongState
from serve_app.jobs.archive import expand
from serve_app.jobs.planning import look, model_of, plan_of
from serve_app.presets import with_preset
from serve_app.settings import Settings
from serve_app.ui.backend import Item, Job, Offer, Plan, Result, Told

logger = logging.getLogger("tessera.page")

MOST_KEPT = 50
"""Jobs in memory; above, those that ended first are forgotten."""
_EVERY_S = 0.3
_MOST_IN_ZIP = 1000
_ZIP_AT_LIMIT = (
    4  # what a ZIP's pictures may weigh together, as a multiple of one's limit: they are held here
)

Planner = Callable[[Path, UpscaleParams, str], Awaitable[Plan]]


@dataclass
class _Kept:
    """A picture and how it gets on."""

    name: str
    image: bytes
    status: str = "queued"
    progress: Progress | None = None
    error: Mapping[str, object] | None = None
    result: UpscaleResult | None = None


@dataclass
class _Running:
    """A job and the task that works on it."""

    id: str
    tenant: str
    params: UpscaleParams
    priority: Priority
    pictures: list[_Kept]
    task: asyncio.Task[None] | None = None
    started: float = field(default_factory=time.monotonic)


class MemoryBackend:
    """See `backend.Backend`.

    Args:
        upscaler: Makes each call.
        settings: Limits of pictures, and presets.
        planner: Tells what a picture costs; None reads the header here.
    """

    def __init__(
        self, upscaler: Upscaler, settings: Settings, planner: Planner | None = None
    ) -> None:
        self._upscaler = upscaler
        self._settings = settings
        self._planner = planner or self._plan_here
        self._jobs: dict[str, _Running] = {}

    async def offer(self) -> Offer:
        """See `backend.Backend`."""
        models = tuple(await self._upscaler.models())
        return Offer(models=models, presets=self._settings.requests.presets)

    async def plan(self, picture: Path, params: UpscaleParams, tenant: str) -> Plan:
        """See `backend.Backend`."""
        return await self._planner(picture, params, tenant)

    async def submit(
        self, pictures: Sequence[Path], params: UpscaleParams, priority: Priority, tenant: str
    ) -> Job:
        """See `backend.Backend`."""
        filled = with_preset(params, self._settings.requests.presets)
        resolve(filled, model_of(filled, await self._upscaler.models()), drawn_seed=0)
        kept = await asyncio.to_thread(self._read, pictures)
        job = _Running(f"job_{uuid.uuid4().hex[:26]}", tenant, filled, priority, kept)
        job.task = asyncio.create_task(self._work(job))
        self._jobs[job.id] = job
        ended = [j.id for j in self._jobs.values() if _record(j).ended]
        for job_id in ended[: max(0, len(self._jobs) - MOST_KEPT)]:
            del self._jobs[job_id]
        return _record(job)

    async def job(self, job_id: str, tenant: str) -> Job:
        """See `backend.Backend`."""
        return _record(self._found(job_id, tenant))

    async def items(self, job_id: str, tenant: str) -> list[Item]:
        """See `backend.Backend`."""
        pictures = self._found(job_id, tenant).pictures
        return [_item(number, kept) for number, kept in enumerate(pictures)]

    async def follow(self, job_id: str, tenant: str) -> AsyncIterator[Told]:
        """See `backend.Backend`."""
        job = self._found(job_id, tenant)
        told: list[Progress | None] = [None] * len(job.pictures)
        while True:
            ended = _record(job).ended
            for number, kept in enumerate(job.pictures):
                if kept.progress is not None and kept.progress is not told[number]:
                    told[number] = kept.progress
                    yield _progress(number, kept.progress, job)
            if ended:
                yield Told(kind="job.finished", data={"status": _record(job).status})
                return
            await asyncio.sleep(_EVERY_S)

    async def preview(self, job_id: str, number: int, tenant: str) -> bytes | None:
        """None: an upscaler shows nothing before its end."""
        return None

    async def result(self, job_id: str, number: int, tenant: str, target: Path) -> None:
        """See `backend.Backend`."""
        kept = self._found(job_id, tenant).pictures[number]
        if kept.result is None:
            raise WrongState(f"the picture is {kept.status} and has no result")
        await asyncio.to_thread(target.write_bytes, kept.result.image)

    async def archive(self, job_id: str, tenant: str, target: Path) -> None:
        """See `backend.Backend`."""
        job = self._found(job_id, tenant)

        def write() -> None:
            with zipfile.ZipFile(target, "w") as file:
                for number, kept in enumerate(job.pictures):
                    if kept.result is not None:
                        kind = kept.result.media_type.split("/")[1]
                        name = f"{number}-{Path(kept.name).stem}.{kind}"
                        file.writestr(name, kept.result.image)

        await asyncio.to_thread(write)

    async def cancel(self, job_id: str, tenant: str) -> Job:
        """See `backend.Backend`."""
        job = self._found(job_id, tenant)
        if job.task is not None:
            job.task.cancel()
            await asyncio.gather(job.task, return_exceptions=True)
        return _record(job)

    async def retry(self, job_id: str, tenant: str) -> Job:
        """See `backend.Backend`."""
        job = self._found(job_id, tenant)
        for kept in job.pictures:
            if kept.status in ("failed", "cancelled"):
                kept.status, kept.error, kept.progress = "queued", None, None
        job.started = time.monotonic()
        job.task = asyncio.create_task(self._work(job))
        return _record(job)

    async def _work(self, job: _Running) -> None:
        """One picture after the other; one that fails does not stop the others."""
        try:
            for kept in job.pictures:
                if kept.status == "queued":
                    await self._upscale(job, kept)
        finally:
            for kept in job.pictures:
                if kept.status in ("queued", "running"):
                    kept.status = "cancelled"

    async def _upscale(self, job: _Running, kept: _Kept) -> None:
        def on_progress(progress: Progress) -> None:
            kept.progress = progress

        kept.status = "running"
        request = UpscaleRequest(
            image=kept.image,
            params=job.params,
            priority=job.priority,
            request_id=uuid.uuid4().hex,
            **({"tenant": job.tenant} if job.tenant else {}),
        )
        try:
            kept.result = await self._upscaler.upscale(request, on_progress)
            kept.status = "succeeded"
        except Exception as error:
            told = TesseraError("the picture could not be upscaled")
            if isinstance(error, TesseraError):
                told = error
            else:
                logger.exception("page.failed", extra={"request_id": request.request_id})
            kept.status = "failed"
            said = {"title": told.title, "detail": told.detail}
            kept.error = said | {"request_id": request.request_id}

    def _read(self, pictures: Sequence[Path]) -> list[_Kept]:
        limit = self._settings.images.upload_bytes
        found: list[_Kept] = []
        for path in pictures:
            if path.suffix.lower() != ".zip":
                if path.stat().st_size > limit:
                    raise TooLarge(f"{path.name} is over {limit} bytes", field="image")
                found.append(_Kept(path.name, path.read_bytes()))
                continue
            with path.open("rb") as file:
                unpacked = expand(file, _MOST_IN_ZIP, limit, _ZIP_AT_LIMIT * limit)
                found += [_Kept(name, data) for name, data in unpacked]
        return found

    async def _plan_here(self, picture: Path, params: UpscaleParams, tenant: str) -> Plan:
        limits = self._settings.images
        filled = with_preset(params, self._settings.requests.presets)
        model = model_of(filled, await self._upscaler.models())
        resolved = resolve(filled, model, drawn_seed=0)
        image = await asyncio.to_thread(picture.read_bytes)
        seen = await asyncio.to_thread(look, image, limits)
        found, frames = plan_of(seen, resolved, model, limits)
        return Plan(
            model=model.name,
            source_width=seen.size.width,
            source_height=seen.size.height,
            width=found.result.width,
            height=found.result.height,
            frames=frames,
            tiles=found.count * frames,
            steps=resolved.steps,
        )

    def _found(self, job_id: str, tenant: str) -> _Running:
        job = self._jobs.get(job_id)
        if job is None or job.tenant != tenant:
            raise NotFound(f"there is no job {job_id[:40]!r}")
        return job


def _progress(number: int, progress: Progress, job: _Running) -> Told:
    share = progress.steps_done / max(1, progress.steps_total)
    spent_s = time.monotonic() - job.started
    eta_s = spent_s * (1 - share) / share if share else None
    facts = {"tiles_done": progress.tiles_done, "tiles_total": progress.tiles_total}
    return Told(kind="item.progress", data={"number": number, "eta_s": eta_s} | facts)


def _record(job: _Running) -> Job:
    states = [kept.status for kept in job.pictures]
    counts = {s: states.count(s) for s in ("queued", "running", "succeeded", "failed", "cancelled")}
    if counts["queued"] + counts["running"]:
        status = "running"
    elif counts["cancelled"]:
        status = "cancelled"
    else:
        status = "failed" if counts["failed"] else "succeeded"
    return Job(id=job.id, status=status, counts=counts | {"total": len(states)})


def _item(number: int, kept: _Kept) -> Item:
    found = kept.result
    return Item(
        number=number,
        name=kept.name,
        status=kept.status,
        tiles_done=kept.progress.tiles_done if kept.progress else 0,
        tiles_total=kept.progress.tiles_total if kept.progress else 0,
        error=kept.error,
        result=None if found is None else _result(found),
    )


def _result(found: UpscaleResult) -> Result:
    return Result(
        media_type=found.media_type,
        width=found.width,
        height=found.height,
        size_bytes=len(found.image),
        details={
            "report": found.report.model_dump() if found.report else None,
            "params": found.params.model_dump(mode="json"),
            "timings_s": found.timings_s,
            "tiles": found.tiles,
        },
    )
