"""The product's story on one page: prepare a picture, denoise its tiles, finish it.

The conductor knows no process: what it conducts stands behind the protocols of `parts`. A picture passes
through it a row of tiles at a time (`rows`), a moving one frame by frame (`animation`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from serve_app.animation import Enlarged, enlarge_frames, together
from serve_app.contracts import (
    MAX_SEED,
    FidelityReport,
    ModelInfo,
    Progress,
    ProgressCallback,
    UpscaleRequest,
    UpscaleResult,
    resolve,
)
from serve_app.errors import Busy, DeadlineExceeded, InvalidParameter, ReplicaLost
from serve_app.imaging.frames import Frames
from serve_app.ledger import Clock, Ledger
from serve_app.parts import (
    Finisher,
    Finishing,
    PixelsRef,
    Prepared,
    Preparer,
    PromptEmbedder,
    PromptRef,
    TileDenoiser,
)
from serve_app.presets import with_preset
from serve_app.rows import denoise_rows
from serve_app.settings import RequestSettings
from serve_app.stages.finish import Finished
from serve_app.tiles import GARBAGE_RETRIES, Job, TileSender, again, task_group

logger = logging.getLogger("tessera.upscale")

T = TypeVar("T")


class Conductor:
    """Satisfies `contracts.Upscaler`.

    Args:
        models: What can be asked for, the default first.
        preparer: Bytes to crops.
        embedder: Texts to embeddings; None where no model takes prompts.
        denoiser: Crops to tiles.
        finisher: Tiles to bytes.
        settings: Bounds on pictures, tiles, retries and time.
    """

    def __init__(
        self,
        models: Sequence[ModelInfo],
        preparer: Preparer,
        embedder: PromptEmbedder | None,
        denoiser: TileDenoiser,
        finisher: Finisher,
        settings: RequestSettings,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._preparer = preparer
        self._embedder = embedder
        self._denoiser = denoiser
        self._finisher = finisher
        self._settings = settings
        self._in_progress = 0

    async def models(self) -> list[ModelInfo]:
        """The models that can be asked for, the default first."""
        return list(self._models.values())

    async def ready(self) -> bool:
        """True only when a denoiser has loaded and warmed its model."""
        return await self._denoiser.ready()

    async def upscale(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None = None
    ) -> UpscaleResult:
        """Upscales one picture; see `contracts.Upscaler`."""
        asked = with_preset(request.params, self._settings.presets)
        model = self._model(asked.model)
        params = resolve(asked, model, drawn_seed=secrets.randbelow(MAX_SEED + 1))
        limit_s = request.timeout_s or self._settings.timeout_s
        job = Job(request, params, model, asyncio.get_running_loop().time() + limit_s)
        self._admit()
        try:
            async with asyncio.timeout_at(job.deadline):
                return await self._run(job, on_progress or _ignore)
        except TimeoutError:
            raise DeadlineExceeded(f"not finished within {limit_s:g} s") from None
        finally:
            self._in_progress -= 1

    async def _run(self, job: Job, on_progress: ProgressCallback) -> UpscaleResult:
        clock = Clock()
        frames = await self._split(job) if job.params.animated else None
        if frames is None:
            made = await self._enlarge(job, on_progress, clock)
        else:
            made = await self._animate(job, frames, on_progress, clock)
        request_id, outline = job.request.request_id, made.outline
        result = UpscaleResult(
            image=made.image,
            media_type=job.params.output_format.media_type,
            width=outline.plan.result.width,
            height=outline.plan.result.height,
            source_width=outline.source.width,
            source_height=outline.source.height,
            tiles=made.tiles,
            tiles_retried=made.report.tiles_retried,
            params=job.params,
            timings_s=clock.laps_s,
            request_id=request_id,
            report=made.report,
            frames=made.frames,
        )
        logger.info("upscale.done", extra={"request_id": request_id, **clock.laps_s})
        return result

    async def _split(self, job: Job) -> Frames | None:
        def split() -> Awaitable[Frames | None]:
            return self._preparer.split(job.request, job.params, job.model)

        return await self._again(job, "split", split)

    async def _animate(
        self, job: Job, frames: Frames, on_progress: ProgressCallback, clock: Clock
    ) -> Enlarged:
        """A moving picture: its frames one by one, then joined."""

        async def one(frame: Job, on_frame: ProgressCallback) -> Enlarged:
            return await self._enlarge(frame, on_frame, Clock(), keep=True)

        clock.lap("prepare")
        made = await enlarge_frames(frames, job, one, on_progress)
        clock.lap("denoise")
        files = replace(frames, pictures=[picture.image for picture in made])

        def join() -> Awaitable[bytes]:
            return self._finisher.join(files, job.params, job.model)

        image = await self._again(job, "join", join)
        clock.lap("finish")
        return together(frames, made, image)

    async def _enlarge(
        self, job: Job, on_progress: ProgressCallback, clock: Clock, *, keep: bool = False
    ) -> Enlarged:
        """A still picture. Its file comes back, or to `keep` where it was made, a reference to it."""
        params = job.params
        prepared, prompts = await self._begin(job)
        plan = prepared.outline.plan
        ledger = Ledger(plan.count, params.steps, on_progress)
        clock.lap("prepare")
        retries, gentle = self._settings.tile_retries, prepared.faces.tiles
        sender = TileSender(self._denoiser, job, prompts, ledger, retries, gentle)
        async with self._finisher.begin(prepared, params, job.model) as finishing:
            ledger.report("denoise")
            await self._denoise_all(job, prepared, sender, finishing)
            clock.lap("denoise")
            ledger.report("finish")
            end = finishing.keep if keep else finishing.end
            finished = await self._again(job, "finish", end)
        clock.lap("finish")
        report = _report(finished, ledger, prepared.faces.count)
        return Enlarged(prepared.outline, finished.image, report, plan.count)

    async def _begin(self, job: Job) -> tuple[Prepared, list[PromptRef]]:
        """Prepares the pictures and embeds the texts, side by side."""

        def prepare() -> Awaitable[Prepared]:
            return self._preparer.prepare(job.request, job.params, job.model)

        async with task_group() as group:
            prepared = group.create_task(self._again(job, "prepare", prepare))
            prompts = [group.create_task(self._embed(text)) for text in job.params.texts]
        return prepared.result(), [prompt.result() for prompt in prompts]

    async def _embed(self, text: str) -> PromptRef:
        if self._embedder is None:
            raise RuntimeError("a model that takes prompts comes with an embedder")
        return await self._embedder.embed(text)

    async def _denoise_all(
        self, job: Job, prepared: Prepared, sender: TileSender, finishing: Finishing
    ) -> None:
        async def cut(row: int) -> Sequence[Sequence[PixelsRef]]:
            def strip() -> Awaitable[Sequence[Sequence[PixelsRef]]]:
                return self._preparer.strip(prepared, job.params, row)

            return await self._again(job, "strip", strip)

        most = self._settings.tiles_at_once
        await denoise_rows(prepared.outline.plan, cut, sender, finishing, most)

    async def _again(self, job: Job, stage: str, send: Callable[[], Awaitable[T]]) -> T:
        """A stage's call, sent again while its replica dies."""

        def on_retry(error: ReplicaLost) -> None:
            extra = {"request_id": job.request.request_id, "stage": stage, "cause": error.detail}
            logger.warning("upscale.stage_retried", extra=extra)

        return await again(send, self._settings.tile_retries, on_retry)

    def _model(self, name: str | None) -> ModelInfo:
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            known = ", ".join(self._models)
            raise InvalidParameter(f"model: no model {name!r}", field="model", allowed=known)
        return self._models[name]

    def _admit(self) -> None:
        if self._in_progress >= self._settings.pictures_at_once:
            raise Busy(
                f"{self._in_progress} pictures are in progress here",
                retry_after_s=self._settings.retry_after_s,
            )
        self._in_progress += 1


def _report(finished: Finished, ledger: Ledger, faces: int) -> FidelityReport:
    """What was measured, and what was done about tiles."""
    warnings = tuple(
        f"tile {index} came out as garbage {1 + GARBAGE_RETRIES} times; the plain resize stands there"
        for index in sorted(ledger.replaced)
    )
    return finished.report.model_copy(
        update={
            "tiles_retried": ledger.retried,
            "tiles_replaced": len(ledger.replaced),
            "faces": faces,
            "warnings": (*finished.report.warnings, *warnings),
        }
    )


def _ignore(_: Progress) -> None:
    """For callers that do not ask for progress."""
