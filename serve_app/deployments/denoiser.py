"""The accelerator's deployment: one engine for each replica, tiles in, tiles out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from serve_app.engine.engine import Engine, StepsDone
from serve_app.engine.task import TileTask
from serve_app.local import build_engine
from serve_app.settings import Settings
from serve_app.tiling.levels import Levels


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Tiles in an engine now, and those that it has answered with pixels so far."""

    tiles: int
    tiles_done: int


class Denoiser:
    """Holds the model. A replica is running, for Ray, only once its engine is warm.

    Args:
        settings: The model, the engine and how often to report.
    """

    def __init__(self, settings: Settings) -> None:
        replicas = settings.deployments.denoiser_replicas
        self._engine: Engine = build_engine(settings.model, settings.engine, sharing_cores=replicas)
        self._interval_s = settings.requests.progress_interval_s

    async def denoise(self, task: TileTask, control: Levels) -> AsyncIterator[StepsDone | Levels]:
        """Computes a tile.

        Yields:
            `StepsDone` now and then; the last one once the tile is decoded, and right after it the
            pixels. So a caller who counts steps knows, unopened, which item is the pixels.
        """
        told = time.monotonic()
        async with aclosing(self._engine.denoise(task, control)) as events:
            async for event in events:
                if not isinstance(event, StepsDone):
                    yield StepsDone(task.params.steps, task.params.steps)
                    yield event
                elif event.done < event.total and time.monotonic() - told >= self._interval_s:
                    told = time.monotonic()
                    yield event

    def load(self) -> EngineLoad:
        """What this replica's engine is at."""
        return EngineLoad(self._engine.load, self._engine.tiles_done)

    def check_health(self) -> None:
        """Ray replaces the replica when this raises."""
        if not self._engine.alive:
            raise RuntimeError("the engine's thread has ended")

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.close()
