"""The whole product in one process, without Ray: for the CLI, for notebooks and for tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from serve_app.contracts import ModelInfo, ResolvedParams, Upscaler, UpscaleRequest
from serve_app.controls.depth import open_depth
from serve_app.controls.pictures import DepthEstimator
from serve_app.engine.engine import Engine, StepsDone
from serve_app.engine.scheduler import Scheduler, Work
from serve_app.engine.task import PromptArrays, Runner, TileInputs, TileTask
from serve_app.imaging.frames import Frames
from serve_app.levels import Levels
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.loras import with_loras
from serve_app.parts import Prepared
from serve_app.settings import ImageLimits, Settings
from serve_app.stages.animate import join, split
from serve_app.stages.finish import Finish, Finished
from serve_app.stages.prepare import prepare, strip
from serve_app.upscale import Conductor

if TYPE_CHECKING:
    from serve_app.diffusion.prompts import PromptEncoder

T = TypeVar("T")


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
        """See `parts.Preparer`."""
        pictures = (request.image, request.control_images)

        def work() -> Prepared:
            found: Any = prepare(*pictures, params, model, self._limits, self._depth)
            outline, faces, source, *drawn = found
            return Prepared(outline, faces, source, drawn)

        return await asyncio.to_thread(work)

    async def split(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Frames | None:
        """See `parts.Preparer`."""
        return await asyncio.to_thread(split, request.image, params, model, self._limits)

    async def strip(
        self, prepared: Prepared, params: ResolvedParams, row: int
    ) -> Sequence[Sequence[Levels]]:
        """See `parts.Preparer`."""
        plan, source, drawn = prepared.outline.plan, prepared.source, prepared.drawn

        def work() -> list[tuple[Levels, ...]]:
            crops = strip(plan, params, row, source, drawn)
            return list(zip(*[crops] * len(params.all_controls), strict=True))

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
        """See `parts.PromptEmbedder`."""
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
        """See `parts.TileDenoiser`."""
        inputs = TileInputs(crops, prompts)
        async with self._places, aclosing(self._engine.denoise(task, inputs)) as events:
            async for event in events:
                if not isinstance(event, StepsDone):
                    return event
                on_steps(event.done)
        raise RuntimeError("an engine's events end with pixels")

    async def ready(self) -> bool:
        """See `parts.TileDenoiser`."""
        return self._engine.alive


class LocalFinisher:
    """Finishes pictures on threads, row by row as the tiles come.

    Args:
        limits: What following a source's profile and reading its metadata may take.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits

    @asynccontextmanager
    async def begin(
        self, prepared: Prepared, params: ResolvedParams, model: ModelInfo
    ) -> AsyncIterator[LocalFinishing]:
        """See `parts.Finisher`."""
        plan, source = prepared.outline.plan, prepared.source
        with await asyncio.to_thread(Finish, plan, params, model, source, self._limits) as finish:
            finishing = LocalFinishing(finish)
            try:
                yield finishing
            finally:
                await finishing.idle()

    async def join(self, frames: Frames, params: ResolvedParams, model: ModelInfo) -> bytes:
        """See `parts.Finisher`."""
        found = (frames, frames.pictures.__getitem__, params, model, self._limits)
        return await asyncio.to_thread(join, *found)


class LocalFinishing:
    """One result in the making, on a thread at a time.

    Args:
        finish: The work.
    """

    def __init__(self, finish: Finish) -> None:
        self._finish = finish
        self._running: asyncio.Future[Any] | None = None

    async def add(self, tiles: Sequence[Levels]) -> None:
        """See `parts.Finishing`."""
        await self._run(self._finish.add, tiles)

    async def end(self) -> Finished:
        """See `parts.Finishing`."""
        return await self._run(self._finish.end)

    async def keep(self) -> Finished:
        """See `parts.Finishing`."""
        return await self.end()

    async def idle(self) -> None:
        """Waits for a thread whose caller was cancelled: it must not write to what is being closed."""
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        self._running = asyncio.get_running_loop().run_in_executor(None, work, *args)
        return await asyncio.shield(self._running)


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
        LocalFinisher(settings.images),
        settings.requests,
    )
