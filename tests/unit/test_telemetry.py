"""An engine's metrics: what is told, when, and the FLOP model of a model folder."""

from __future__ import annotations

from collections import defaultdict
from contextlib import aclosing
from typing import Any

import pytest

from serve_app import telemetry
from serve_app.engine.engine import Engine
from serve_app.engine.scheduler import Kind, Scheduler, Work
from serve_app.errors import DeadlineExceeded, TileFailed
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.flops import image_tokens, step_flop
from serve_app.models.memory import read_config
from serve_app.settings import EngineSettings, ModelSettings
from serve_app.telemetry import EngineMetrics, flop_model
from serve_app.testing_engine import PacedRunner
from tests.unit.engine.entries import entry, inputs, task

Tags = tuple[str, ...]


class Exported:
    """Stands where Ray's metrics stand: a gauge's last value, a counter's sum, a histogram's values."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, Tags], list[float]] = defaultdict(list)

    def of(self, name: str, *tags: str) -> list[float]:
        return self.values[name, tags]

    def record(self, name: str, *_: Any) -> Any:
        values = self.values

        class Metric:
            def set(self, value: float, tags: dict[str, str] | None = None) -> None:
                values[name, tuple((tags or {}).values())] = [value]

            def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
                values[name, tuple((tags or {}).values())].append(value)

            inc = observe

        return Metric()

    Counter = Gauge = Histogram = record


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    found = Exported()
    monkeypatch.setattr(telemetry, "metrics", found)
    return found


def start(metrics: EngineMetrics, **told: Any) -> Engine:
    engine = Engine(PacedRunner(**told), Scheduler(EngineSettings(max_batch=2)), metrics)
    metrics.watch(engine)
    return engine


async def pixels_of(engine: Engine, index: int, **given: Any) -> None:
    async with aclosing(engine.denoise(task(index, **given), inputs(index))) as events:
        async for _ in events:
            pass


async def test_what_an_engine_did_is_exported_once_it_is_idle(exported: Exported):
    metrics = EngineMetrics()
    metrics.entry_flop = lambda _: 1e12
    engine = start(metrics, fail_at=[(1, 0)])
    await pixels_of(engine, 0, steps=3)
    with pytest.raises(TileFailed):
        await pixels_of(engine, 1)
    with pytest.raises(DeadlineExceeded):
        await pixels_of(engine, 2, time_left_s=0)
    await pixels_of(engine, 3, steps=1)
    engine.close()

    done = [sum(exported.of(telemetry.TILES, how)) for how in ("done", "failed", "late")]
    assert done == [2, 1, 1]
    assert exported.of(telemetry.STEP_ROWS) == [1] * 5
    assert len(exported.of(telemetry.TURN_SECONDS, "step")) == 5
    assert len(exported.of(telemetry.TURN_SECONDS, "encode")) == 3
    assert exported.of(telemetry.TILES_IN_ENGINE) == [0]
    assert exported.of(telemetry.TILES_WAITING, "interactive") == [0]
    assert exported.of(telemetry.STEP_TFLOPS)[0] > 0


def test_a_busy_engine_is_read_once_a_second_at_most(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
):
    class Busy:
        tiles_done = tiles_cancelled = tiles_failed = tiles_late = rows_skipped = 0
        load = 5
        waiting = staticmethod({"interactive": 3, "batch": 1}.__getitem__)

    now = 100.0
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: now)
    metrics, busy = EngineMetrics(), Busy()
    metrics.watch(busy)
    busy.tiles_done, busy.rows_skipped = 2, 4
    turn = Work(Kind.STEP, (entry(0), entry(1)), 2)
    metrics(turn, 0.5)
    assert exported.of(telemetry.TILES, "done") == []
    now += 1
    metrics(turn, 0.5)
    metrics(turn, 0.5)
    assert exported.of(telemetry.TILES, "done") == [2]
    assert exported.of(telemetry.ROWS_SKIPPED) == [4]
    assert exported.of(telemetry.TILES_WAITING, "batch") == [1]
    assert exported.of(telemetry.STEP_ROWS) == [2, 2, 2]


def test_the_flop_model_counts_a_larger_tile_and_a_second_pass():
    count = flop_model(ModelSettings())
    small, large = entry(0, side_px=128), entry(0, side_px=256)
    assert 0 < 4 * count(small) < count(large) < 16 * count(small)
    twice = entry(0, side_px=128)
    guided = twice.task.params.model_copy(update={"true_cfg_scale": 2.0})
    object.__setattr__(twice.task, "params", guided)
    config = read_config(find_model("mini") / "transformer")
    tokens = image_tokens(128, 128, read_model_info(find_model("mini")).align_px)
    second = count(twice) - count(small)
    assert second == step_flop(config, [], tokens, small.bucket.text_tokens)  # no ControlNet again
    assert second < count(small)
