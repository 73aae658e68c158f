"""b. What do mixed steps and parameters cost, when all requests are there at once?"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

from benchmarks.chart import bars
from benchmarks.engine_rivals import Contender, Work, contenders, make_work
from serve_app.contracts import Priority, UpscaleParams
from serve_app.settings import Settings

TITLE = "Throughput with mixed steps and parameters"


def measure(quick: bool, rounds: int) -> dict[str, Any]:
    """Seconds of each round of each contender, all requests sent at once."""
    requests, steps = (3, (1, 3)) if quick else (16, (4, 16))
    found: dict[str, list[float]] = {}
    with contenders(Settings()) as all_contenders:
        work = mixed(requests, steps)
        for contender in all_contenders.values():
            asyncio.run(contender.run(work[0]))  # warm
        for number in range(rounds):
            for name, contender in all_contenders.items():
                seconds = asyncio.run(_all_at_once(contender, work))
                found.setdefault(name, []).append(seconds)
                print(f"b, round {number + 1}: {name}: {seconds:.1f} s", flush=True)
    tiles = [item.task.params.steps for request in work for item in request]
    sizes = {"requests": requests, "tiles": len(tiles), "tile_steps": sum(tiles)}
    return {"steps": steps, "rounds": rounds, "seconds": found} | sizes


def mixed(requests: int, steps: tuple[int, int]) -> list[list[Work]]:
    """Requests of 1 to 4 tiles, no two with the same parameters; the same in every run."""
    draw, found = random.Random(0), []
    for number in range(requests):
        params = UpscaleParams(
            steps=draw.randint(*steps),
            guidance_scale=draw.uniform(1, 8),
            control_scale=draw.uniform(0.5, 1.5),
            control_start=draw.choice((0, 0, 0.2)),
            control_end=draw.choice((0.7, 1, 1)),
            strength=draw.uniform(0.5, 1),
            seed=number,
        )
        found.append(make_work(f"mixed-{number}", draw.randint(1, 4), params, Priority.INTERACTIVE))
    return found


async def _all_at_once(contender: Contender, work: list[list[Work]]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(contender.run(request) for request in work))
    return time.perf_counter() - started


def report(found: dict[str, Any]) -> tuple[str, str]:
    """The section's Markdown and its chart."""
    rates = {
        name: found["tile_steps"] / statistics.median(s) for name, s in found["seconds"].items()
    }
    rows = [
        f"| {name} | {rate:.2f} | **{rates['Tessera'] / rate:.2f}** | "
        f"{', '.join(f'{value:.1f}' for value in found['seconds'][name])} |"
        for name, rate in rates.items()
    ]
    low, high = found["steps"]
    text = f"""{found["requests"]} requests of 1 to 4 tiles, {found["tiles"]} tiles together, all sent at once:
{low} to {high} steps, and each its own guidance, control scale, control window, strength and seed;
{found["rounds"]} alternating rounds, medians.

| contender | tile-steps/s | Tessera's rate over this one's | seconds of each round |
|---|---|---|---|
{chr(10).join(rows)}
"""
    return text, bars("Tile-steps a second", {name: {"rate": rate} for name, rate in rates.items()})
