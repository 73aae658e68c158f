"""a. How long does somebody wait for one tile while a batch job of many tiles runs?

For each contender in turn, in alternating rounds: one tile at a time with nothing else running; then one tile
at irregular intervals for as long as the job runs. Latencies are divided by the same contender's idle median.
"""

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

TITLE = "Interactive latency while a batch job runs"


def measure(quick: bool, rounds: int) -> dict[str, Any]:
    """Seconds of each interactive tile, by contender and by whether the job ran."""
    tiles, steps, idle = (4, 2, 2) if quick else (36, 8, 6)
    interval = 1 if quick else 3  # between interactive tiles, in units of the idle latency
    found: dict[str, dict[str, list[float]]] = {}
    with contenders(Settings()) as all_contenders:
        job = make_work("job", tiles, UpscaleParams(steps=steps), Priority.BATCH)
        tile = make_work("tile", 1, UpscaleParams(steps=steps), Priority.INTERACTIVE)
        for contender in all_contenders.values():
            asyncio.run(contender.run(tile))  # warm
        for number in range(rounds):
            for name, contender in all_contenders.items():
                kept = found.setdefault(name, {"idle": [], "loaded": [], "job": []})
                seconds = asyncio.run(_round(contender, job, tile, idle, interval, number))
                for phase, values in seconds.items():
                    kept[phase] += values
                print(f"a, round {number + 1}: {name}: {seconds}", flush=True)
    facts = {"tiles": tiles, "steps": steps, "interval": interval, "rounds": rounds}
    return facts | {"seconds": found}


async def _round(
    contender: Contender, job: list[Work], tile: list[Work], idle: int, interval: int, seed: int
) -> dict[str, list[float]]:
    async def once() -> float:
        started = time.perf_counter()
        await contender.run(tile)
        return time.perf_counter() - started

    alone = [await once() for _ in range(idle)]
    pause_s, draw = interval * statistics.median(alone), random.Random(seed)
    started = time.perf_counter()
    running = asyncio.create_task(contender.run(job))
    asked: list[asyncio.Task[float]] = []
    while not running.done():
        await asyncio.wait([running], timeout=pause_s * draw.uniform(0.5, 1.5))
        if not running.done():
            asked.append(asyncio.create_task(once()))
    job_s = time.perf_counter() - started
    return {"idle": alone, "loaded": list(await asyncio.gather(*asked)), "job": [job_s]}


def percentile(values: list[float], percent: int) -> float:
    """The value below which so many of a hundred lie, interpolated."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def report(found: dict[str, Any]) -> tuple[str, str]:
    """The section's Markdown and its chart."""
    rows, ratios = [], {}
    for name, seconds in found["seconds"].items():
        idle = statistics.median(seconds["idle"])
        of = {p: percentile(seconds["loaded"], p) for p in (50, 95)}
        ratios[name] = {f"p{p}": value / idle for p, value in of.items()}
        rows.append(
            f"| {name} | {idle:.2f} | {percentile(seconds['idle'], 95):.2f} | {of[50]:.2f} | {of[95]:.2f} | "
            f"**{of[50] / idle:.1f}** | **{of[95] / idle:.1f}** | {len(seconds['loaded'])} | "
            f"{statistics.median(seconds['job']):.1f} |"
        )
    text = f"""One tile of {found["steps"]} steps, asked for at irregular intervals (on the mean
{found["interval"]} times its idle latency) while a job of {found["tiles"]} such tiles runs with priority
`batch`; {found["rounds"]} alternating rounds. Seconds, and ratios to the same contender's idle median.

| contender | idle p50 | idle p95 | loaded p50 | loaded p95 | p50 / idle | p95 / idle | tiles asked | job |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""
    return text, bars("Latency under load, times idle", ratios)
