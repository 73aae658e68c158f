"""The product's story on one page: prepare a picture, denoise its tiles, finish it.

The conductor knows no process: the three parts that it conducts stand behind protocols, satisfied in one
process by `local` and over Ray by `deployments`. Pixels pass through as opaque references, never opened here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
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
from serve_app.settings import RequestSettings
from serve_app.stages import Outline

logger = logging.getLogger("tessera.upscale")

PixelsRef = Any  # pixels here, or a reference to pixels elsewhere; only carried from part to part
_FIRST_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture ready for denoising.

    Attributes:
        outline: Its size and its plan.
        source: The decoded source, for the finish.
        crops: One control crop for each of the plan's tiles, in order.
    """

    outline: Outline
    source: PixelsRef
    crops: Sequence[PixelsRef]


class Preparer(Protocol):
    """Bytes to crops."""

    async def prepare(self, image: bytes, params: ResolvedParams, model: ModelInfo) -> Prepared:
        """Decodes, enlarges and cuts a picture; raises RequestError where it cannot."""
        ...


class TileDenoiser(Protocol):
    """Crops to tiles."""

    async def denoise(
        self, task: TileTask, crop: PixelsRef, on_steps: Callable[[int], None]
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


class Conductor:
    """Satisfies `contracts.Upscaler`.

    Args:
        models: What can be asked for, the default first.
        preparer: Bytes to crops.
        denoiser: Crops to tiles.
        finisher: Tiles to bytes.
        settings: Bounds on pictures, tiles, retries and time.
    """

    def __init__(
        self,
        models: Sequence[ModelInfo],
        preparer: Preparer,
        denoiser: TileDenoiser,
        finisher: Finisher,
        settings: RequestSettings,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._preparer = preparer
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
        self._admit()
        try:
            async with asyncio.timeout(limit_s):
                return await self._run(request, params, model, on_progress or _ignore)
        except TimeoutError:
            raise DeadlineExceeded(f"not finished within {limit_s:g} s") from None
        finally:
            self._in_progress -= 1

    async def _run(
        self,
        request: UpscaleRequest,
        params: ResolvedParams,
        model: ModelInfo,
        on_progress: ProgressCallback,
    ) -> UpscaleResult:
        clock = _Clock()
        prepared = await self._preparer.prepare(request.image, params, model)
        plan = prepared.outline.plan
        ledger = _Ledger(plan.count, params.steps, on_progress)
        clock.lap("prepare")
        tiles = await self._denoise_all(request.request_id, prepared, params, ledger)
        clock.lap("denoise")
        ledger.report("finish")
        image = await self._finisher.finish(prepared, params, model, tiles)
        clock.lap("finish")
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
            request_id=request.request_id,
        )
        logger.info("upscale.done", extra={"request_id": request.request_id, **clock.laps_s})
        return result

    async def _denoise_all(
        self, request_id: str, prepared: Prepared, params: ResolvedParams, ledger: _Ledger
    ) -> list[PixelsRef]:
        """All tiles of a picture, a bounded number at once. The first failure ends the others."""
        places = asyncio.Semaphore(self._settings.tiles_at_once)

        async def one(task: TileTask, crop: PixelsRef) -> PixelsRef:
            async with places:
                return await self._denoise(task, crop, ledger)

        ledger.report("denoise")
        cut = zip(prepared.outline.plan.tiles, prepared.crops, strict=True)
        try:
            async with asyncio.TaskGroup() as group:
                running = [
                    group.create_task(one(TileTask(request_id, index, tile, params), crop))
                    for index, (tile, crop) in enumerate(cut)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in running]

    async def _denoise(self, task: TileTask, crop: PixelsRef, ledger: _Ledger) -> PixelsRef:
        """One tile, sent again while its replica dies under it: computed twice, it is the same tile."""
        for attempt in range(self._settings.tile_retries):
            try:
                return await self._attempt(task, crop, ledger)
            except ReplicaLost as error:
                extra = {"request_id": task.request_id, "tile": task.index, "cause": error.detail}
                logger.warning("upscale.tile_retried", extra=extra)
                ledger.retried += 1
                await asyncio.sleep(_FIRST_RETRY_S * 2**attempt)
        return await self._attempt(task, crop, ledger)

    async def _attempt(self, task: TileTask, crop: PixelsRef, ledger: _Ledger) -> PixelsRef:
        tile = await self._denoiser.denoise(task, crop, lambda done: ledger.steps(task.index, done))
        ledger.done(task.index)
        return tile

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


class _Ledger:
    """Counts tiles and steps, and tells the caller at each change."""

    def __init__(self, tiles: int, steps: int, on_progress: ProgressCallback) -> None:
        self._steps = [0] * tiles
        self._steps_each = steps
        self._tiles_done = 0
        self._on_progress = on_progress
        self.retried = 0

    def steps(self, index: int, done: int) -> None:
        if done > self._steps[index]:  # a tile that was sent again first catches up, in silence
            self._steps[index] = done
            self.report("denoise")

    def done(self, index: int) -> None:
        self._tiles_done += 1
        self._steps[index] = self._steps_each
        self.report("denoise")

    def report(self, stage: str) -> None:
        total = self._steps_each * len(self._steps)
        self._on_progress(
            Progress(
                stage=stage,
                tiles_done=self._tiles_done,
                tiles_total=len(self._steps),
                steps_done=sum(self._steps),
                steps_total=total,
            )
        )


class _Clock:
    """Seconds spent in each stage, by name."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.laps_s: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps_s[name] = now - self._last
        self._last = now


def _ignore(_: Progress) -> None:
    """For callers that do not ask for progress."""
