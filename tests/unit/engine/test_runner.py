"""The runner on the tiny model: what shares a batch has no say in a tile's result, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.contracts import ControlParams, Limits, ResidualCache, UpscaleParams, resolve
from serve_app.diffusion import graphs
from serve_app.diffusion.loader import FluxModel, load_model
from serve_app.engine.engine import Engine
from serve_app.engine.runner import FluxRunner
from serve_app.engine.scheduler import Kind, Scheduler
from serve_app.engine.task import Entry, PromptArrays, TileInputs, TileTask
from serve_app.errors import GarbageTile, TileFailed
from serve_app.levels import TOP_LEVEL, Levels
from serve_app.settings import EngineSettings, Settings
from serve_app.tiling.geometry import Tile
from tests.tiny_flux import TILE_PX, build_tiny_flux
from tests.tiny_lora import save_tiny_lora

ONE_GREY_LEVEL = TOP_LEVEL // 255

TILES: list[dict[str, Any]] = [
    {"steps": 1, "seed": 0},
    {"steps": 4, "seed": 2**63 - 1, "guidance_scale": 8.0},
    {"steps": 3, "seed": 1, "control_scale": 0.0},
    {"steps": 3, "seed": 1, "control_scale": 1.5, "control_start": 0.3},
    {"steps": 5, "seed": 2, "strength": 0.4, "controls": (ControlParams(name="canny"),)},
    {"steps": 2, "seed": 3, "prompt": "a red house"},
    {"steps": 4, "seed": 4, "true_cfg_scale": 3.0, "negative_prompt": "blurry"},
    {"steps": 2, "seed": 5, "true_cfg_scale": 2.0, "prompt": "a face", "control_end": 0.5},
]
COMPUTED = ResidualCache(threshold=1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FluxModel:
    folder = build_tiny_flux(tmp_path_factory.mktemp("union"), with_union=True)
    return load_model(folder, torch.device("cpu"), torch.float32)


def with_cache(model: FluxModel) -> FluxModel:
    return replace(model, info=model.info.model_copy(update={"residual_cache": COMPUTED}))


def task(model: FluxModel, index: int, asked: dict[str, Any]) -> TileTask:
    resolved = resolve(UpscaleParams(**asked), model.info, drawn_seed=9)
    return TileTask("r", index, Tile(8 * index, 16, TILE_PX, TILE_PX), resolved)


def picture(index: int) -> Levels:
    """Smooth, so that the tiny model's random weights do not clip everything to black and white."""
    y, x = np.mgrid[0:TILE_PX, 0:TILE_PX] / TILE_PX
    planes = [0.3 + 0.4 * y, 0.7 - 0.4 * x, 0.5 + 0.2 * np.sin(index + 6 * x * y)]
    return np.rint(np.stack(planes, axis=2) * TOP_LEVEL).astype(np.uint16)


def prompt(text: str, tokens: int = 512) -> PromptArrays:
    rng = np.random.default_rng(list(text.encode()))
    normal = rng.standard_normal((tokens + 1, 32), np.float32)
    return PromptArrays(normal[:-1], normal[-1])


def inputs(tile: TileTask) -> TileInputs:
    pictures = [picture(tile.index + 9 * n) for n in range(len(tile.params.all_controls))]
    return TileInputs(pictures, [prompt(text) for text in tile.params.texts])


class Watched(FluxRunner):
    """Notes how many tiles each step had; can spoil a tile."""

    def __init__(self, model: FluxModel, spoilt: int | None = None, **engine: Any) -> None:
        super().__init__(model, EngineSettings(**engine), threads=1)
        self.batches: list[tuple[int, int]] = []
        self._spoilt = spoilt

    def step(self, entries: Sequence[Entry], size: int) -> None:
        self.batches.append((len(entries), size))
        super().step(entries, size)
        for entry in entries:
            if entry.task.index == self._spoilt:
                row = self._rows[entry.id]
                row.latents = torch.full_like(row.latents, torch.nan)


def entries_of(runner: FluxRunner, tiles: Sequence[TileTask]) -> list[Entry]:
    return [Entry(n, tile, *runner.plan(tile, inputs(tile))) for n, tile in enumerate(tiles)]


def run(runner: FluxRunner, tiles: Sequence[TileTask], size: int, vae: int) -> list[Levels]:
    """All tiles through the runner together, each for as many steps as it has."""
    entries = entries_of(runner, tiles)
    for start in range(0, len(entries), vae):
        some = entries[start : start + vae]
        runner.encode(some, [inputs(entry.task) for entry in some], vae)
    while running := [entry for entry in entries if entry.steps_done < entry.steps]:
        runner.step(running, size)
        for entry in running:
            entry.steps_done += 1
    found: list[Levels] = []
    for start in range(0, len(entries), vae):
        for tile in runner.decode(entries[start : start + vae], vae):
            assert isinstance(tile, np.ndarray)
            found.append(tile)
    for entry in entries:
        runner.drop(entry.id)
    return found


def solo(model: FluxModel, tile: TileTask, **engine: Any) -> Levels:
    return run(FluxRunner(model, EngineSettings(max_batch=1, **engine), 1), [tile], 1, 1)[0]


def distance(one: Any, other: Levels) -> int:
    return int(np.abs(one.astype(int) - other).max())


async def results(engine: Engine, tasks: Sequence[TileTask]) -> list[Levels | BaseException]:
    async def one(tile: TileTask) -> Levels:
        found = [event async for event in engine.denoise(tile, inputs(tile))][-1]
        assert isinstance(found, np.ndarray)
        return found

    return await asyncio.gather(*(one(tile) for tile in tasks), return_exceptions=True)


# Company


@pytest.mark.parametrize("residual_cache", [False, True])
@pytest.mark.parametrize("max_batch", [3, 8])
async def test_tiles_together_equal_their_solo_results(
    model: FluxModel, max_batch: int, residual_cache: bool
):
    model = with_cache(model)
    chosen = {"residual_cache": residual_cache}
    runner = Watched(model, max_batch=max_batch, vae_batch=2, **chosen)
    engine = Engine(runner, Scheduler(EngineSettings(max_batch=max_batch, vae_batch=2, **chosen)))
    tasks = [task(model, index, asked) for index, asked in enumerate(TILES)]
    together = await results(engine, tasks)
    engine.close()
    assert max(rows for rows, _ in runner.batches) > 1
    assert all(rows <= size <= max_batch for rows, size in runner.batches)
    for tile, found in zip(tasks, together, strict=True):
        alone = solo(model, tile, **chosen)
        assert alone.std() > ONE_GREY_LEVEL  # there is something to compare
        assert distance(found, alone) <= ONE_GREY_LEVEL
    assert runner._rows == {}


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(8)), st.integers(1, 4), st.sampled_from([1, 2]), st.booleans())
def test_exact_results_are_bit_equal_in_any_company_and_slot(
    model: FluxModel, order: list[int], rows: int, vae: int, residual_cache: bool
):
    model = with_cache(model)
    settings = EngineSettings(max_batch=4, vae_batch=vae, exact=True, residual_cache=residual_cache)
    tasks = [task(model, index, TILES[index]) for index in order[:rows]]
    together = run(FluxRunner(model, settings, 1), tasks, 4, vae)
    for tile, found in zip(tasks, together, strict=True):
        (alone,) = run(FluxRunner(model, settings, 1), [tile], 4, vae)
        assert np.array_equal(found, alone)


def test_a_tile_computed_twice_is_the_same_tile(model: FluxModel):
    tile = task(model, 1, TILES[1])
    assert np.array_equal(solo(model, tile), solo(model, tile))


def test_a_tile_depends_on_its_place(model: FluxModel):
    tile = task(model, 0, {"steps": 2, "seed": 1})
    moved = replace(tile, tile=Tile(0, 24, TILE_PX, TILE_PX))
    assert distance(solo(model, tile), solo(model, moved)) > ONE_GREY_LEVEL


def test_a_second_control_acts(model: FluxModel):
    asked: dict[str, Any] = {"steps": 2, "seed": 1}
    controls = {"controls": (ControlParams(name="pose", scale=1.5),)}
    one, both = (solo(model, task(model, 0, asked | more)) for more in ({}, controls))
    assert distance(one, both) > ONE_GREY_LEVEL


def test_little_strength_stays_near_the_source(model: FluxModel):
    def change(strength: float) -> float:
        asked = {"steps": 1, "seed": 1, "strength": strength}
        one, none = (solo(model, task(model, 0, asked | p)) for p in ({}, {"strength": 1e-6}))
        return float(np.abs(one.astype(float) - none).mean())

    assert change(0.01) < change(0.3) < change(1.0)


async def test_a_tile_that_turns_nan_fails_alone(model: FluxModel):
    engine = Engine(Watched(model, 1, max_batch=4), Scheduler(EngineSettings(max_batch=4)))
    tasks = [task(model, index, {"steps": 2, "seed": index}) for index in range(3)]
    found = await results(engine, tasks)
    engine.close()
    assert isinstance(found[1], GarbageTile)
    assert "tile 1 came out as NaN" in found[1].detail
    for index in (0, 2):
        assert distance(found[index], solo(model, tasks[index])) <= ONE_GREY_LEVEL


@pytest.mark.parametrize(("judges", "failed"), [(True, GarbageTile), (False, np.ndarray)])
def test_a_tile_that_shows_nothing_of_its_source_is_garbage(
    model: FluxModel, judges: bool, failed: type
):
    judging = replace(model, info=model.info.model_copy(update={"judges_tiles": judges}))
    runner = FluxRunner(judging, EngineSettings(), 1)
    tile = task(model, 4, {"steps": 1})
    (entry,) = entries_of(runner, [tile])
    runner.encode([entry], [inputs(tile)], 1)
    runner.step([entry], 1)
    runner._rows[entry.id].means = np.full((8, 8, 4), 5, np.float32)  # as far as can be
    (found,) = runner.decode([entry], 1)
    assert isinstance(found, failed)


@pytest.mark.parametrize(
    ("stated", "asked", "skips"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_steps_are_skipped_where_model_and_settings_say_so(
    model: FluxModel, stated: bool, asked: bool, skips: bool
):
    tile = task(model, 0, {"steps": 12})
    found = solo(with_cache(model) if stated else model, tile, residual_cache=asked)
    assert np.array_equal(found, solo(model, tile)) != skips


# Planning


def test_a_plan_is_the_steps_and_the_bucket(model: FluxModel):
    runner = FluxRunner(model, EngineSettings(), 1)
    plain, worded = (task(model, 0, {"steps": 5, "prompt": text}) for text in ("", "a house"))
    assert runner.plan(plain, inputs(plain)) == (5, (TILE_PX, TILE_PX, 512, "", 1.0))
    assert runner.plan(worded, TileInputs([picture(0)], [prompt("a", 128)]))[1].text_tokens == 128


def test_prompts_of_two_lengths_are_refused(model: FluxModel):
    guided = task(model, 0, {"prompt": "a house", "true_cfg_scale": 2.0})
    with pytest.raises(TileFailed, match=r"\[128, 512\] tokens"):
        FluxRunner(model, EngineSettings(), 1).plan(
            guided, TileInputs([picture(0)], [prompt("a house", 128)])
        )


# Opening


@pytest.mark.parametrize("exact", [False, True])
def test_opening_warms_and_measures_every_size_and_leaves_nothing(model: FluxModel, exact: bool):
    runner = Watched(model, max_batch=3, vae_batch=2, exact=exact)
    measured = runner.open()
    sizes, vae_sizes = ([3], [2]) if exact else ([1, 2, 3], [1, 2])
    assert set(measured) == {
        *((Kind.STEP, size) for size in sizes),
        *((kind, size) for kind in (Kind.ENCODE, Kind.DECODE) for size in vae_sizes),
    }
    assert all(seconds > 0 for seconds in measured.values())
    assert set(runner.batches) == {(size, size) for size in sizes}
    assert runner._rows == {}


def test_opening_sets_the_threads_of_the_engines_thread(model: FluxModel):
    with ThreadPoolExecutor(1) as thread:
        thread.submit(FluxRunner(model, EngineSettings(), 3).open).result()
        assert thread.submit(torch.get_num_threads).result() == 3
        thread.submit(torch.set_num_threads, 1).result()


def test_a_model_that_refuses_one_step_warms_up_too(model: FluxModel):
    defaults = model.info.defaults.model_copy(update={"steps": 8})
    info = model.info.model_copy(update={"defaults": defaults, "limits": Limits(steps=(4, 16))})
    runner = Watched(replace(model, info=info), max_batch=1)
    runner.open()
    assert set(runner.batches) == {(1, 1)}


# Adapters


def test_a_step_uses_the_adapter_of_its_bucket(model: FluxModel):
    used: list[tuple[str, float]] = []

    class Adapters:
        version = ("", 1.0)

        def use(self, name: str, scale: float) -> None:
            used.append((name, scale))
            self.version = (name, scale)

    runner = FluxRunner(replace(model, adapters=Adapters()), EngineSettings(), 1)
    tile = task(model, 0, {"steps": 2})
    tile = replace(tile, params=tile.params.model_copy(update={"lora": "turbo", "lora_scale": 0.5}))
    run(runner, [tile], 1, 1)
    assert used == [("turbo", 0.5)] * 2
    assert runner._networks.transformer.version == ("turbo", 0.5)


@pytest.mark.parametrize("control_scale", [0.6, 0])
@pytest.mark.parametrize("lora", ["", "turbo"])
def test_no_graph_is_recorded_while_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: str, control_scale: float
):
    recorded: list[Any] = []

    def record(compute: Any) -> Any:
        recorded.append(compute)
        return compute

    monkeypatch.setattr(graphs, "_CudaRecorder", lambda: record)
    folder = build_tiny_flux(tmp_path / "model", takes_prompt=False, with_text_encoders=False)
    save_tiny_lora(folder, tmp_path / "loras" / "turbo", seed=1)
    settings = Settings.parse({"model": {"source": "x", "loras": str(tmp_path / "loras")}})
    model = load_model(folder, torch.device("cpu"), torch.float32, settings)
    # as on a GPU: every size is warmed
    runner = FluxRunner(model, EngineSettings(max_batch=2, cuda_graphs=True, compile=True), 1)
    runner.open()
    warm = len(recorded)
    assert warm > 0
    given = {"steps": 2, "control_scale": control_scale}
    tiles = [task(model, index, given) for index in range(2)]
    update = {"lora": lora}
    tiles = [replace(t, params=t.params.model_copy(update=update)) for t in tiles]
    run(runner, tiles, 2, 1)
    run(runner, tiles[:1], 1, 1)
    assert len(recorded) == warm


# What stays


def test_a_failed_encoding_keeps_nothing(model: FluxModel):
    runner = FluxRunner(model, EngineSettings(), 1)
    tiles = [task(model, 0, {"steps": 2}), task(model, 1, {"steps": 2, "prompt": "a house"})]
    given = [inputs(tiles[0]), replace(inputs(tiles[1]), prompts=[])]
    with pytest.raises(ValueError, match="zip"):
        runner.encode(entries_of(runner, tiles), given, 2)
    assert runner._rows == {}


def test_a_dropped_tile_is_forgotten(model: FluxModel):
    runner = FluxRunner(model, EngineSettings(), 1)
    (entry,) = entries_of(runner, [task(model, 0, {"steps": 2})])
    runner.encode([entry], [inputs(entry.task)], 1)
    runner.drop(entry.id)
    runner.drop(entry.id)
    with pytest.raises(KeyError):
        runner.step([entry], 1)


def tensors() -> int:
    """Bytes of all tensors that live; those of compilers, which hold none, aside."""
    gc.collect()
    return sum(found.nbytes for found in gc.get_objects() if type(found) is torch.Tensor)


def test_tiles_that_came_and_went_leave_no_tensor(model: FluxModel):
    """Finished, cancelled before their first step, and cancelled between two steps."""
    model = with_cache(model)
    runner = FluxRunner(model, EngineSettings(max_batch=4, residual_cache=True), 1)
    tiles = [task(model, index, asked) for index, asked in enumerate(TILES)]

    def come_and_go(number: int) -> None:
        some = [tiles[(number + n) % len(TILES)] for n in range(3)]
        if number % 3 == 0:
            run(runner, some, 4, 1)
            return
        entries = entries_of(runner, some)
        runner.encode(entries, [inputs(tile) for tile in some], 1)
        if number % 3 == 1:
            runner.step(entries, 4)
        for entry in entries:
            runner.drop(entry.id)

    for number in range(24):  # each combination once: what is computed once is kept
        come_and_go(number)
    before = tensors()
    for number in range(72):
        come_and_go(number)
    assert runner._rows == {}
    assert tensors() == before
