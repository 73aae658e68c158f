"""The product's story on one page: prepare a picture, denoise its tiles, finish it.

The conductor knows no process: the three parts that it conducts stand behind protocols, satisfied in one
process by `local` and over Ray by `deployments`. Pixels pass through as opaque references, never opened here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from serve_app.contracts import (
    MAX_SEED,
    ModelInfo,
    Progress,
    ProgressCallback,
    ResolvedParams,
    UpscaleRequest,
    UpscaleResult,
    resolve,
)
from serve_app.engine.task import TileTask
from serve_app.errors import Busy, DeadlineExceeded, InvalidParameter, ReplicaLost
from serve_app.ledger import Clock, Ledger
from serve_app.settings import RequestSettings
from serve_app.stages import Outline
from serve_app.tiling.geometry import Tile

logger = logging.getLogger("tessera.upscale")

PixelsRef = Any  # pixels here, or a reference to pixels elsewhere; only carried from part to part
PromptRef = Any  # a prompt's embeddings, likewise
_FIRST_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture ready for denoising.

    Attributes:
        outline: Its size and its plan.
        source: The decoded source, for the finish.
        crops: For each of the plan's tiles, in order, one crop for each of the request's controls.
    """

    outline: Outline
    source: PixelsRef
    crops: Sequence[Sequence[PixelsRef]]


class Preparer(Protocol):
    """Bytes to crops."""

    async def prepare(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Prepared:
        """Decodes, enlarges and cuts the request's pictures; raises RequestError where it cannot."""
        ...


class PromptEmbedder(Protocol):
    """Texts to embeddings."""

    async def embed(self, text: str) -> PromptRef:
        """Embeds a text; equal texts are computed once in a while only."""
        ...


class TileDenoiser(Protocol):
    """Crops to tiles."""

    async def denoise(
        self,
        task: TileTask,
        crops: Sequence[PixelsRef],
        prompts: Sequence[PromptRef],
        on_steps: Callable[[int], None],
    ) -> PixelsRef:
        """Computes one tile; raises ReplicaLost where the same task may be sent again.

        `on_steps` hears how many steps are done. Cancelling the call frees the tile's place within a step.
        """
        ...

    async def ready(self) -> bool:
        """True only when a model is loaded and warm."""
        ...


class Finisher(Protocol):
    """Tiles to bytes."""

    async def finish(
        self,
        prepared: Prepared,
        params: ResolvedParams,
        model: ModelInfo,
        tiles: Sequence[PixelsRef],
    ) -> bytes:
        """Joins the tiles and encodes the result."""
        ...


@dataclass(frozen=True, slots=True)
class _Job:
    """One request on its way: what all of its tiles share."""

    request: UpscaleRequest
    params: ResolvedParams
    model: ModelInfo
    deadline: float  # the event loop's time, s

    def task(self, index: int, tile: Tile, now: float) -> TileTask:
        """A tile's task; its time left counts from now."""
        request, left_s = self.request, max(self.deadline - now, 0)
        return TileTask(
            request.request_id, index, tile, self.params, request.priority, request.tenant, left_s
        )


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
        model = self._model(request.params.model)
        params = resolve(request.params, model, drawn_seed=secrets.randbelow(MAX_SEED + 1))
        limit_s = request.timeout_s or self._settings.timeout_s
        job = _Job(request, params, model, asyncio.get_running_loop().time() + limit_s)
        self._admit()
        try:
            async with asyncio.timeout_at(job.deadline):
                return await self._run(job, on_progress or _ignore)
        except TimeoutError:
            raise DeadlineExceeded(f"not finished within {limit_s:g} s") from None
        finally:
            self._in_progress -= 1

    async def _run(self, job: _Job, on_progress: ProgressCallback) -> UpscaleResult:
        clock, params = Clock(), job.params
        prepared, prompts = await self._begin(job)
        plan = prepared.outline.plan
        ledger = Ledger(plan.count, params.steps, on_progress)
        clock.lap("prepare")
        tiles = await self._denoise_all(job, prepared, prompts, ledger)
        clock.lap("denoise")
        ledger.report("finish")
        image = await self._finisher.finish(prepared, params, job.model, tiles)
        clock.lap("finish")
        request_id = job.request.request_id
        result = UpscaleResult(
            image=image,
            media_type=params.output_format.media_type,
            width=plan.result.width,
            height=plan.result.height,
            source_width=prepared.outline.source.width,
            source_height=prepared.outline.source.height,
            tiles=plan.count,
            tiles_retried=ledger.retried,
            params=params,
            timings_s=clock.laps_s,
            request_id=request_id,
        )
        logger.info("upscale.done", extra={"request_id": request_id, **clock.laps_s})
        return result

    async def _begin(self, job: _Job) -> tuple[Prepared, list[PromptRef]]:
        """Prepares the pictures and embeds the texts, side by side."""
        async with _task_group() as group:
            prepared = group.create_task(self._preparer.prepare(job.request, job.params, job.model))
            prompts = [group.create_task(self._embed(text)) for text in job.params.texts]
        return prepared.result(), [prompt.result() for prompt in prompts]

    async def _embed(self, text: str) -> PromptRef:
        if self._embedder is None:
            raise RuntimeError("a model that takes prompts comes with an embedder")
        return await self._embedder.embed(text)

    async def _denoise_all(
        self, job: _Job, prepared: Prepared, prompts: Sequence[PromptRef], ledger: Ledger
    ) -> list[PixelsRef]:
        """All tiles of a picture, a bounded number at once. The first failure ends the others."""
        places = asyncio.Semaphore(self._settings.tiles_at_once)

        async def one(index: int, tile: Tile, crops: Sequence[PixelsRef]) -> PixelsRef:
            async with places:
                return await self._denoise(job, index, tile, crops, prompts, ledger)

        ledger.report("denoise")
        cut = zip(prepared.outline.plan.tiles, prepared.crops, strict=True)
        async with _task_group() as group:
            running = [
                group.create_task(one(index, tile, crops))
                for index, (tile, crops) in enumerate(cut)
            ]
        return [task.result() for task in running]

    async def _denoise(
        self,
        job: _Job,
        index: int,
        tile: Tile,
        crops: Sequence[PixelsRef],
        prompts: Sequence[PromptRef],
        ledger: Ledger,
    ) -> PixelsRef:
        """One tile, sent again while its replica dies under it: computed twice, it is the same tile."""
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            task = job.task(index, tile, loop.time())
            try:
                found = await self._denoiser.denoise(
                    task, crops, prompts, lambda done: ledger.steps(index, done)
                )
            except ReplicaLost as error:
                if attempt == self._settings.tile_retries:
                    raise
                extra = {"request_id": task.request_id, "tile": index, "cause": error.detail}
                logger.warning("upscale.tile_retried", extra=extra)
                ledger.retried += 1
                await asyncio.sleep(_FIRST_RETRY_S * 2**attempt)
                attempt += 1
            else:
                ledger.done(index)
                return found

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


@asynccontextmanager
async def _task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first failure comes out alone."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _ignore(_: Progress) -> None:
    """For callers that do not ask for progress."""
