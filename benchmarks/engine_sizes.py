"""c. What does a larger batch gain? The engine alone, in this process, at each `engine.max_batch` in turn."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import aclosing
from typing import Any

import numpy as np

from benchmarks.chart import bars
from serve_app.contracts import UpscaleParams, resolve
from serve_app.engine.engine import Engine
from serve_app.engine.task import TileInputs, TileTask
from serve_app.local import build_engine
from serve_app.models.catalog import find_model, read_model_info
from serve_app.settings import Settings
from serve_app.testing import photo_like
from serve_app.tiling.geometry import Tile

TITLE = "Throughput by batch size"


def measure(quick: bool, rounds: int) -> dict[str, Any]:
    """Seconds of each round at each batch size; an engine is closed before the next is opened."""
    sizes, tiles, steps = ((1, 2), 2, 2) if quick else ((1, 2, 4, 8), 16, 8)
    found: dict[str, list[float]] = {str(size): [] for size in sizes}
    for number in range(rounds):
        for size in sizes:
            engine = build_engine(Settings.parse({"engine": {"max_batch": size}}))
            seconds = asyncio.run(_all_at_once(engine, tiles, steps))
            engine.close()
            found[str(size)].append(seconds)
            print(f"c, round {number + 1}: batch {size}: {seconds:.1f} s", flush=True)
    return {"tiles": tiles, "steps": steps, "rounds": rounds, "seconds": found}


async def _all_at_once(engine: Engine, tiles: int, steps: int) -> float:
    model = read_model_info(find_model("mini"))
    params = resolve(UpscaleParams(steps=steps), model, drawn_seed=0)
    side = model.tile_px
    crop = photo_like(side, side).astype(np.uint16) * 257

    async def one(index: int) -> None:
        task = TileTask("sizes", index, Tile(0, index * side, side, side), params)
        async with aclosing(engine.denoise(task, TileInputs([crop]))) as events:
            async for _ in events:
                pass

    started = time.perf_counter()
    await asyncio.gather(*(one(index) for index in range(tiles)))
    return time.perf_counter() - started


def report(found: dict[str, Any]) -> tuple[str, str]:
    """The section's Markdown and its chart."""
    rates = {size: found["tiles"] / statistics.median(s) for size, s in found["seconds"].items()}
    rows = [
        f"| {size} | {rate:.2f} | **{rate / rates['1']:.2f}** | "
        f"{', '.join(f'{value:.1f}' for value in found['seconds'][size])} |"
        for size, rate in rates.items()
    ]
    text = f"""{found["tiles"]} tiles of {found["steps"]} steps through the engine alone, all sent at once;
{found["rounds"]} alternating rounds, medians.

| `engine.max_batch` | tiles/s | against 1 | seconds of each round |
|---|---|---|---|
{chr(10).join(rows)}
"""
    return text, bars("Tiles a second", {f"batch {size}": {"rate": r} for size, r in rates.items()})
