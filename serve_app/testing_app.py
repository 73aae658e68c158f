"""The composition root of tests and benchmarks: the product's graph with denoisers that sleep, not compute.

So many GPUs can be tried on two cores. Nothing here is imported by the product. It refuses to know networks.
"""

# No postponed annotations here: Ray Serve reads the type of `build_paced_app`'s argument from its signature.
import json
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import Field
from ray.serve import Application

from serve_app.app import compose
from serve_app.deployments.denoiser import Denoiser
from serve_app.engine.engine import Engine
from serve_app.engine.scheduler import Scheduler
from serve_app.settings import JobSettings, Settings
from serve_app.telemetry import EngineMetrics
from serve_app.testing import FAKE_MODEL
from serve_app.testing_engine import RooflineRunner, Turn


class PacedSettings(Settings):
    """Settings with a pace. The tiles that travel are `FAKE_MODEL`'s, whatever they are paced as.

    There are no jobs unless the caller says where they are kept.
    """

    jobs: JobSettings = JobSettings(enabled=False)
    paced_as_px: Literal[512, 768, 1024] = Field(
        1024, description="Side of the tiles whose time a step takes."
    )
    pace: float = Field(1, ge=0, description="Seconds slept for each second of an H200; 0 is idle.")
    turns_to: str | None = Field(
        None, description="Folder in which each replica writes its turns, a line of JSON each."
    )


class PacedDenoiser(Denoiser):
    """A `Denoiser` without a model."""

    @staticmethod
    def start_engine(settings: Settings, metrics: EngineMetrics) -> Engine:
        """Starts at once."""
        paced = PacedSettings.model_validate(settings)
        on_turn = None if paced.turns_to is None else _writer(Path(paced.turns_to))
        runner = RooflineRunner(paced.paced_as_px, paced.engine, paced.pace, on_turn)
        return Engine(runner, Scheduler(paced.engine), metrics)


def _writer(folder: Path) -> Callable[[Turn], None]:
    file = (folder / f"{uuid.uuid4().hex}.jsonl").open("w", buffering=1)

    def write(turn: Turn) -> None:
        file.write(json.dumps(asdict(turn) | {"kind": turn.kind.name.lower()}) + "\n")

    return write


def build_paced_app(args: PacedSettings) -> Application:
    """Builds the graph of `app.build_app` around `PacedDenoiser` and `FAKE_MODEL`."""
    return compose(args, FAKE_MODEL, PacedDenoiser)
