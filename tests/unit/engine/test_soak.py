"""10,000 tiles with cancels, faults, deadlines and refusals: each is answered, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import tracemalloc
from collections import Counter
from contextlib import aclosing

import numpy as np
import pytest

from serve_app.contracts import Priority
from serve_app.engine.engine import Engine, StepsDone
from serve_app.engine.scheduler import Scheduler
from serve_app.errors import Busy, DeadlineExceeded, TileFailed
from serve_app.settings import EngineSettings
from serve_app.testing_engine import PacedRunner
from tests.unit.engine.entries import crop, inputs, task

TILES = 10_000
AT_ONCE = 100
MOST_GROWTH_BYTES = 200_000  # a row of a real tile alone is larger


async def one(engine: Engine, draw: random.Random, index: int) -> str:
    """Sends a tile and says what became of it; an answer that does not fit fails the test."""
    steps = 1 + index % 6
    tile = task(
        index,
        steps,
        request_id=f"r{draw.randrange(20)}",
        tenant=f"t{draw.randrange(3)}",
        priority=draw.choice(list(Priority)),
        time_left_s=0.0 if draw.random() < 0.05 else None,
    )
    leaves_after = draw.randrange(steps) if draw.random() < 0.2 else None
    done = 0
    try:
        async with aclosing(engine.denoise(tile, inputs(index % 1000))) as events:
            async for event in events:
                if not isinstance(event, StepsDone):
                    assert np.array_equal(event, crop(index % 1000))
                    return "pixels"
                assert event == StepsDone(done + 1, steps)
                done = event.done
                if done == leaves_after:
                    return "left"
    except Busy:
        await asyncio.sleep(0.005)  # as one who was told to come back later
        return "Busy"
    except (DeadlineExceeded, TileFailed) as error:
        return type(error).__name__
    raise AssertionError("no end")


async def soak(engine: Engine, draw: random.Random, indices: range) -> Counter[str]:
    left = iter(indices)
    found: Counter[str] = Counter()

    async def client() -> None:
        for index in left:
            found[await one(engine, draw, index)] += 1

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    await engine.probe()  # the thread has heard all that was said before
    return found


async def test_ten_thousand_tiles_leave_nothing_behind(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.CRITICAL, "tessera.engine")  # the log of a test is kept, as leaks are
    draw = random.Random(0)
    fails = {(index, draw.randrange(1 + index % 6)) for index in range(0, TILES, 17)}
    spoils = {(index, draw.randrange(1 + index % 6)) for index in range(5, TILES, 23)}
    runner = PacedRunner(fail_at=fails, nan_at=spoils)
    runner.turns = _Forgetful()
    settings = EngineSettings(max_batch=4, vae_batch=2, max_waiting=48)
    engine = Engine(runner, Scheduler(settings))
    threads = threading.active_count()
    found = await soak(engine, draw, range(TILES // 2))  # also warms what is made once
    tracemalloc.start()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    found += await soak(engine, draw, range(TILES // 2, TILES))
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found.total() == TILES
    assert found.keys() == {
        "pixels",
        "left",
        "Busy",
        "DeadlineExceeded",
        "TileFailed",
        "GarbageTile",
    }
    assert min(found.values()) > 100
    assert after - before < MOST_GROWTH_BYTES
    assert len(engine._scheduler) == 0
    assert engine._callers == {}
    assert runner.rows == {}
    assert runner._spoilt == set()
    assert len(asyncio.all_tasks()) == 1
    assert threading.active_count() == threads
    engine.close()
    assert engine.tiles_failed >= found["TileFailed"] + found["GarbageTile"]
    assert engine.tiles_late >= found["DeadlineExceeded"]
    assert found["pixels"] <= engine.tiles_done <= found["pixels"] + found["left"]


class _Forgetful(list):  # type: ignore[type-arg]
    """A log of turns that keeps none: what is measured is the engine's memory."""

    def append(self, _: object) -> None:
        return
