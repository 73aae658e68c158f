"""The whole product in one process, without Ray: for the CLI, for notebooks and for tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from serve_app.contracts import ModelInfo, ResolvedParams, Upscaler, UpscaleRequest
from serve_app.controls.depth import open_depth
from serve_app.controls.pictures import DepthEstimator
from serve_app.engine.engine import Engine, StepsDone
from serve_app.engine.scheduler import Scheduler, Work
from serve_app.engine.task import PromptArrays, Runner, TileInputs, TileTask
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.loras import with_loras
from serve_app.settings import ImageLimits, Settings
from serve_app.stages import Source, finish, prepare
from serve_app.tiling.levels import Levels
from serve_app.upscale import Conductor, Prepared

if TYPE_CHECKING:
    from serve_app.diffusion.prompts import PromptEncoder


class LocalPreparer:
    """Prepares pictures on a thread.

    Args:
        limits: On uploads, the source and the result.
        depth: Estimates depth, where the model offers it.
    """

    def __init__(self, limits: ImageLimits, depth: DepthEstimator | None) -> None:
        self._limits = limits
        self._depth = depth

    async def prepare(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Prepared:
        """See `upscale.Preparer`."""
        pictures = (request.image, request.control_images)

        def work() -> Prepared:
            found: Any = prepare(*pictures, params, model, self._limits, self._depth)
            outline, source, *crops = found
            each = len(params.all_controls)
            return Prepared(
                outline, source, [crops[i : i + each] for i in range(0, len(crops), each)]
            )

        return await asyncio.to_thread(work)


class LocalPromptEmbedder:
    """Embeds texts on a thread of its own, one after the other: so equal texts at once are encoded once.

    Args:
        settings: Of the model and its text encoders, which are loaded by the first text.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "tessera-prompts")

    async def embed(self, text: str) -> PromptArrays:
        """See `upscale.PromptEmbedder`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._embed, text)

    def open(self) -> None:
        """Loads the encoders, if they are not yet."""
        _ = self._encoder

    def _embed(self, text: str) -> PromptArrays:
        return PromptArrays(*self._encoder.encode(text))

    @cached_property
    def _encoder(self) -> PromptEncoder:
        from serve_app.diffusion.prompts import open_encoder

        return open_encoder(self._settings.model, self._settings.prompts)


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


def build_engine(
    settings: Settings,
    sharing_cores: int = 1,
    observe: Callable[[Work, float], None] = lambda work, seconds: None,
) -> Engine:
    """Loads the model and starts an engine on it.

    Args:
        settings: Of the model and the engine.
        sharing_cores: Engines among which the process's cores are divided, where `threads` is not set.
        observe: See `Engine`.

    Raises:
        ConfigurationError: if the model or the device cannot be used.
    """
    return Engine(build_runner(settings, sharing_cores), Scheduler(settings.engine), observe)


def build_runner(settings: Settings, sharing_cores: int = 1) -> Runner:
    """Loads the model for an engine; see `build_engine`."""
    # Read by OpenMP when torch is first imported: threads that wait give their core away instead of spinning on
    # it. Beside one busy process on two cores, tiles took half the CPU time so; alone it costs nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from serve_app.diffusion.loader import choose_device, load_model
    from serve_app.engine.runner import FluxRunner

    chosen = settings.engine
    device, dtype = choose_device(chosen.device, chosen.dtype)
    folder = find_model(settings.model.source, settings.model.cache_dir)
    model = load_model(folder, device, dtype, settings)
    cores = len(os.sched_getaffinity(0))
    return FluxRunner(model, chosen, chosen.threads or max(1, cores // sharing_cores))


@asynccontextmanager
async def local_upscaler(settings: Settings) -> AsyncIterator[Upscaler]:
    """An upscaler in this process; its engine ends with the context.

    Raises:
        ConfigurationError: if the model or the device cannot be used.
    """
    chosen = settings.model
    found = read_model_info(find_model(chosen.source, chosen.cache_dir))
    info = with_loras(found, chosen.loras)
    depth = await asyncio.to_thread(open_depth, settings.model)
    engine = await asyncio.to_thread(build_engine, settings)
    try:
        yield conduct(info, engine, settings, depth)
    finally:
        await asyncio.to_thread(engine.close)


def conduct(
    info: ModelInfo, engine: Engine, settings: Settings, depth: DepthEstimator | None = None
) -> Conductor:
    """Puts a conductor before an engine of this process."""
    return Conductor(
        [info],
        LocalPreparer(settings.images, depth),
        LocalPromptEmbedder(settings) if info.takes_prompt else None,
        LocalDenoiser(engine, settings.engine.max_waiting),
        LocalFinisher(),
        settings.requests,
    )
