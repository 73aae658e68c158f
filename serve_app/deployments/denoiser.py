"""The accelerator's deployment: one engine for each replica, tiles in, tiles out."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from serve_app.engine.engine import Engine, StepsDone
from serve_app.engine.task import PromptArrays, TileInputs, TileTask
from serve_app.errors import ReplicaLost
from serve_app.levels import Levels
from serve_app.local import build_engine
from serve_app.settings import Settings
from serve_app.telemetry import EngineMetrics, flop_model


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
        self._leaving = False
        self._metrics = EngineMetrics()
        self._engine = self.start_engine(settings, self._metrics)
        self._metrics.watch(self._engine)
        self._interval_s = settings.requests.progress_interval_s

    async def denoise(
        self, task: TileTask, *inputs: Levels | PromptArrays
    ) -> AsyncIterator[StepsDone | Levels | None]:
        """Computes a tile.

        Args:
            task: What to compute.
            *inputs: A crop for each of the task's controls, then its prompts; top-level arguments, so that Ray
                resolves their references.

        Yields:
            `StepsDone` now and then; the last one once the tile is decoded, after it the pixels, and None at
            the end. So a caller who counts steps knows, unopened, which item is the pixels.
        """
        told = time.monotonic()
        controls = len(task.params.all_controls)
        tile_inputs = TileInputs(inputs[:controls], inputs[controls:])  # type: ignore[arg-type]
        try:
            async with aclosing(self._engine.denoise(task, tile_inputs)) as events:
                async for event in events:
                    if not isinstance(event, StepsDone):
                        yield StepsDone(task.params.steps, task.params.steps)
                        yield event
                        yield None
                    elif event.done < event.total and time.monotonic() - told >= self._interval_s:
                        told = time.monotonic()
                        yield event
        except ReplicaLost:
            if self._leaving:  # Ray ends this replica itself, once its other streams have ended
                raise
            # Ray would go on sending tiles until three health checks have failed: half a minute, and all of
            # them here, to the replica that is done soonest. A process that is gone gets none.
            os._exit(1)

    def load(self) -> EngineLoad:
        """What this replica's engine is at."""
        return EngineLoad(self._engine.load, self._engine.tiles_done)

    async def check_health(self) -> None:
        """Ray replaces the replica when this raises, or when the engine's thread gives no answer."""
        await self._engine.probe()
        self._metrics.tell()

    @staticmethod
    def start_engine(settings: Settings, metrics: EngineMetrics) -> Engine:
        """Loads the model; returns once every batch size is warm."""
        metrics.entry_flop = flop_model(settings.model)
        return build_engine(settings, settings.deployments.denoiser_replicas, metrics)

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            self._leaving = True
            engine.close()
