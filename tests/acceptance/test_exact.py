"""With `exact`, the embedded model's tiles are bit-equal whatever shares their batch, in every slot."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from serve_app.contracts import UpscaleParams, resolve
from serve_app.diffusion.loader import FluxModel, load_model
from serve_app.engine.runner import FluxRunner
from serve_app.engine.task import Entry, TileInputs, TileTask
from serve_app.levels import TOP_LEVEL, Levels
from serve_app.models.catalog import find_model
from serve_app.settings import EngineSettings
from serve_app.tiling.geometry import Tile

BATCH = 3
SETTINGS = EngineSettings(max_batch=BATCH, vae_batch=BATCH, exact=True)


def run(model: FluxModel, numbers: tuple[int, ...]) -> list[Levels]:
    """Tiles of other pictures, seeds and parameters, one step each."""
    runner, side = FluxRunner(model, SETTINGS, threads=1), model.info.tile_px
    entries: list[Entry] = []
    given: list[TileInputs] = []
    for number in numbers:
        asked = UpscaleParams(steps=1, seed=number, guidance_scale=2.0 + number, strength=0.9)
        params = resolve(asked, model.info, drawn_seed=0)
        task = TileTask("r", number, Tile(8 * number, 0, side, side), params)
        rng = np.random.default_rng(number)
        given.append(TileInputs([rng.integers(0, TOP_LEVEL, (side, side, 3), np.uint16)]))
        entries.append(Entry(number, task, *runner.plan(task, given[-1])))
    runner.encode(entries, given, BATCH)
    runner.step(entries, BATCH)
    tiles = runner.decode(entries, BATCH)
    return [tile for tile in tiles if isinstance(tile, np.ndarray)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_slot_and_company_gives_the_same_bits(dtype: torch.dtype) -> None:
    model = load_model(find_model("mini"), torch.device("cpu"), dtype)
    alone = {number: run(model, (number,))[0] for number in range(BATCH)}
    assert not np.array_equal(alone[0], alone[1])
    orders = [*permutations(range(BATCH), BATCH), *permutations(range(BATCH), 2)][1::2]
    for order in orders:
        for number, found in zip(order, run(model, order), strict=True):
            assert np.array_equal(found, alone[number])
