"""A replica without its accelerator ends its process; one that is told to leave hands its tiles back."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from serve_app.deployments.denoiser import Denoiser
from serve_app.engine.engine import Engine
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.task import Entry, Kind
from serve_app.errors import ReplicaLost
from serve_app.settings import EngineSettings, Settings
from serve_app.telemetry import EngineMetrics
from serve_app.testing_engine import PacedRunner
from tests.unit.engine.entries import crop, task


class Exited(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _exit_is_seen(monkeypatch: pytest.MonkeyPatch):
    def leave(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr(os, "_exit", leave)


def denoiser_of(runner: PacedRunner) -> Denoiser:
    class Paced(Denoiser):
        @staticmethod
        def start_engine(settings: Settings, metrics: EngineMetrics) -> Engine:
            return Engine(runner, Scheduler(EngineSettings()), metrics)

    return Paced(Settings())


async def test_a_replica_whose_accelerator_is_lost_ends_its_process():
    def fault(kind: Kind, entries: Sequence[Entry]) -> None:
        runner.probe = fail  # type: ignore[method-assign]
        fail()

    def fail() -> None:
        raise RuntimeError("an illegal memory access")

    runner = PacedRunner(on_turn=fault)
    with pytest.raises(Exited, match="1"):
        [item async for item in denoiser_of(runner).denoise(task(), crop(0))]


async def test_a_replica_that_leaves_hands_a_tile_back_and_lets_its_process_be():
    denoiser = denoiser_of(PacedRunner())
    denoiser.__del__()  # as Ray calls it, while late tiles still come
    with pytest.raises(ReplicaLost):
        [item async for item in denoiser.denoise(task(), crop(0))]
