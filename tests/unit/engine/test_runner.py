"""The whole engine on the tiny model: what shares a batch has no say in a tile's result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.contracts import Limits, UpscaleParams, resolve
from serve_app.diffusion.loader import FluxModel, load_model
from serve_app.engine.engine import Engine
from serve_app.engine.runner import FluxRunner
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.task import Entry, TileTask
from serve_app.errors import TileFailed
from serve_app.tiling.geometry import Tile
from serve_app.tiling.levels import TOP_LEVEL, Levels
from tests.tiny_flux import TILE_PX

ONE_GREY_LEVEL = TOP_LEVEL // 255

TILES: list[dict[str, Any]] = [
    {"steps": 1, "seed": 0},
    {"steps": 4, "seed": 2**63 - 1, "guidance_scale": 8.0},
    {"steps": 3, "seed": 1, "control_scale": 0.0},
    {"steps": 3, "seed": 1, "control_scale": 1.5, "control_start": 0.3},
    {"steps": 5, "seed": 2, "strength": 0.4},
    {"steps": 2, "seed": 3, "prompt": "a red house"},
    {"steps": 4, "seed": 4, "true_cfg_scale": 3.0, "negative_prompt": "blurry"},
    {"steps": 2, "seed": 5, "true_cfg_scale": 2.0, "prompt": "a face", "control_end": 0.5},
]


@pytest.fixture(scope="module")
def model(tiny_flux_folder: Path) -> FluxModel:
    return load_model(tiny_flux_folder, torch.device("cpu"), torch.float32)


def task(model: FluxModel, index: int, params: dict[str, Any]) -> TileTask:
    resolved = resolve(UpscaleParams(**params), model.info, drawn_seed=9)
    return TileTask("r", index, Tile(8 * index, 16, TILE_PX, TILE_PX), resolved)


def control(index: int) -> Levels:
    """Smooth, so that the tiny model's random weights do not clip everything to black and white."""
    y, x = np.mgrid[0:TILE_PX, 0:TILE_PX] / TILE_PX
    planes = [0.3 + 0.4 * y, 0.7 - 0.4 * x, 0.5 + 0.2 * np.sin(index + 6 * x * y)]
    return np.rint(np.stack(planes, axis=2) * TOP_LEVEL).astype(np.uint16)


class Watched(FluxRunner):
    """Notes how many tiles each step had; can spoil a tile."""

    def __init__(self, model: FluxModel, spoilt: int | None = None) -> None:
        super().__init__(model, threads=1)
        self.batches: list[int] = []
        self._spoilt = spoilt

    def step(self, entries: Sequence[Entry]) -> None:
        self.batches.append(len(entries))
        super().step(entries)
        for entry in entries:
            if entry.task.index == self._spoilt:
                row = self._rows[entry.id]
                row.latents = torch.full_like(row.latents, torch.nan)


async def results(engine: Engine, tasks: Sequence[TileTask]) -> list[Levels | BaseException]:
    async def one(tile: TileTask) -> Levels:
        found = [event async for event in engine.denoise(tile, control(tile.index))][-1]
        assert isinstance(found, np.ndarray)
        return found

    return await asyncio.gather(*(one(tile) for tile in tasks), return_exceptions=True)


def solo(model: FluxModel, tile: TileTask) -> Levels:
    """The runner alone, without an engine."""
    runner = FluxRunner(model, threads=1)
    entry = Entry(0, tile, runner.plan(tile))
    runner.encode([entry], [control(tile.index)])
    for step in range(entry.steps):
        entry.steps_done = step
        runner.step([entry])
    (found,) = runner.decode([entry])
    assert isinstance(found, np.ndarray)
    return found


def distance(one: Any, other: Levels) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("max_batch", [3, 8])
async def test_tiles_together_equal_their_solo_results(model: FluxModel, max_batch: int):
    runner = Watched(model)
    engine = Engine(runner, Scheduler(max_batch, 64))
    tasks = [task(model, index, params) for index, params in enumerate(TILES)]
    together = await results(engine, tasks)
    engine.close()
    assert max(runner.batches) > 1
    assert all(batch <= max_batch for batch in runner.batches)
    for tile, found in zip(tasks, together, strict=True):
        alone = solo(model, tile)
        assert alone.std() > ONE_GREY_LEVEL  # there is something to compare
        assert distance(found, alone) <= ONE_GREY_LEVEL
    assert runner._rows == {}


def test_a_tile_computed_twice_is_the_same_tile(model: FluxModel):
    tile = task(model, 1, TILES[1])
    assert np.array_equal(solo(model, tile), solo(model, tile))


def test_a_tile_depends_on_its_place(model: FluxModel):
    tile = task(model, 0, {"steps": 2, "seed": 1})
    moved = replace(tile, tile=Tile(0, 24, TILE_PX, TILE_PX))
    assert distance(solo(model, tile), solo(model, moved)) > ONE_GREY_LEVEL


def test_little_strength_stays_near_the_source(model: FluxModel):
    def change(strength: float) -> float:
        params = {"steps": 1, "seed": 1, "strength": strength}
        one, none = (solo(model, task(model, 0, params | p)) for p in ({}, {"strength": 1e-6}))
        return float(np.abs(one.astype(float) - none).mean())

    assert change(0.01) < change(0.3) < change(1.0)


async def test_a_tile_that_turns_nan_fails_alone(model: FluxModel):
    engine = Engine(Watched(model, spoilt=1), Scheduler(4, 64))
    tasks = [task(model, index, {"steps": 2, "seed": index}) for index in range(3)]
    found = await results(engine, tasks)
    engine.close()
    assert isinstance(found[1], TileFailed)
    assert "tile 1 came out as NaN" in found[1].detail
    for index in (0, 2):
        assert distance(found[index], solo(model, tasks[index])) <= ONE_GREY_LEVEL


async def test_a_prompt_without_text_encoders_fails_alone(model: FluxModel):
    engine = Engine(FluxRunner(replace(model, prompt_encoder=None), threads=1), Scheduler(4, 64))
    found = await results(engine, [task(model, i, {"prompt": "a" * i}) for i in range(2)])
    engine.close()
    assert isinstance(found[0], np.ndarray)
    assert isinstance(found[1], TileFailed)
    assert "no text encoders" in found[1].detail


def test_a_failed_encoding_keeps_nothing(model: FluxModel):
    runner = FluxRunner(replace(model, prompt_encoder=None), threads=1)
    entries = [Entry(i, task(model, i, {"prompt": "a" * i}), steps=2) for i in range(2)]
    with pytest.raises(TileFailed):
        runner.encode(entries, [control(0), control(1)])
    assert runner._rows == {}


def test_opening_warms_up_and_leaves_nothing(model: FluxModel):
    runner = Watched(model)
    runner.open()
    assert runner.batches == [1]
    assert runner._rows == {}


def test_opening_sets_the_threads_of_the_engines_thread(model: FluxModel):
    with ThreadPoolExecutor(1) as thread:
        thread.submit(FluxRunner(model, threads=3).open).result()
        assert thread.submit(torch.get_num_threads).result() == 3
        thread.submit(torch.set_num_threads, 1).result()


def test_a_model_that_refuses_one_step_warms_up_too(model: FluxModel):
    defaults = model.info.defaults.model_copy(update={"steps": 8})
    limits = Limits(steps=(4, 16))
    info = model.info.model_copy(update={"defaults": defaults, "limits": limits})
    runner = Watched(replace(model, info=info))
    runner.open()
    assert runner.batches == [1]


def test_a_dropped_tile_is_forgotten(model: FluxModel):
    runner = FluxRunner(model, threads=1)
    entry = Entry(7, task(model, 0, {"steps": 2}), steps=2)
    runner.encode([entry], [control(0)])
    runner.drop(7)
    runner.drop(7)
    with pytest.raises(KeyError):
        runner.step([entry])
