"""The whole product in one process, without Ray: for the CLI, for notebooks and for tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from serve_app.contracts import ModelInfo, ResolvedParams, Upscaler, UpscaleRequest
from serve_app.engine.engine import Engine, StepsDone
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.task import PromptArrays, TileInputs, TileTask
from serve_app.models.catalog import find_model, read_model_info
from serve_app.settings import ImageLimits, Settings
from serve_app.stages import Source, cut, finish, open_source, outline
from serve_app.tiling.levels import Levels
from serve_app.upscale import Conductor, Prepared


class LocalPreparer:
    """Prepares pictures on a thread."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits

    async def prepare(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Prepared:
        """See `upscale.Preparer`."""

        def work() -> Prepared:
            found = outline(request.image, params, model, self._limits)
            source = open_source(request.image, self._limits)
            return Prepared(found, source, [(crop,) for crop in cut(source, found.plan)])

        return await asyncio.to_thread(work)


class LocalDenoiser:
    """Denoises tiles with an engine of this process.

    Args:
        engine: The engine.
        most_waiting: What the engine lets wait; more tiles wait here, so that none is refused half way.
    """

    def __init__(self, engine: Engine, most_waiting: int) -> None:
        self._engine = engine
        self._places = asyncio.Semaphore(most_waiting)

    async def denoise(
        self,
        task: TileTask,
        crops: Sequence[Levels],
        prompts: Sequence[PromptArrays],
        on_steps: Callable[[int], None],
    ) -> Levels:
        """See `upscale.TileDenoiser`."""
        inputs = TileInputs(crops, prompts)
        async with self._places, aclosing(self._engine.denoise(task, inputs)) as events:
            async for event in events:
                if not isinstance(event, StepsDone):
                    return event
                on_steps(event.done)
        raise RuntimeError("an engine's events end with pixels")

    async def ready(self) -> bool:
        """See `upscale.TileDenoiser`."""
        return self._engine.alive


class LocalFinisher:
    """Finishes pictures on a thread."""

    async def finish(
        self, prepared: Prepared, params: ResolvedParams, model: ModelInfo, tiles: Sequence[Levels]
    ) -> bytes:
        """See `upscale.Finisher`."""
        source: Source = prepared.source
        rounds = model.backprojection_rounds
        plan = prepared.outline.plan
        return await asyncio.to_thread(finish, plan, params, rounds, source, tiles)


def build_engine(settings: Settings, sharing_cores: int = 1) -> Engine:
    """Loads the model and starts an engine on it.

    Args:
        settings: Of the model and the engine.
        sharing_cores: Engines among which the process's cores are divided, where `threads` is not set.

    Raises:
        ConfigurationError: if the model or the device cannot be used.
    """
    # Read by OpenMP when torch is first imported: threads that wait give their core away instead of spinning on
    # it. Beside one busy process on two cores, tiles took half the CPU time so; alone it costs nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from serve_app.diffusion.loader import choose_device, load_model
    from serve_app.engine.runner import FluxRunner

    chosen = settings.engine
    device, dtype = choose_device(chosen.device, chosen.dtype)
    model = load_model(find_model(settings.model.source), device, dtype)
    cores = len(os.sched_getaffinity(0))
    runner = FluxRunner(model, chosen, chosen.threads or max(1, cores // sharing_cores))
    return Engine(runner, Scheduler(chosen))


@asynccontextmanager
async def local_upscaler(settings: Settings) -> AsyncIterator[Upscaler]:
    """An upscaler in this process; its engine ends with the context.

    Raises:
        ConfigurationError: if the model or the device cannot be used.
    """
    info = read_model_info(find_model(settings.model.source))
    engine = await asyncio.to_thread(build_engine, settings)
    try:
        yield conduct(info, engine, settings)
    finally:
        await asyncio.to_thread(engine.close)


def conduct(info: ModelInfo, engine: Engine, settings: Settings) -> Conductor:
    """Puts a conductor before an engine of this process."""
    return Conductor(
        [info],
        LocalPreparer(settings.images),
        None,
        LocalDenoiser(engine, settings.engine.max_waiting),
        LocalFinisher(),
        settings.requests,
    )
