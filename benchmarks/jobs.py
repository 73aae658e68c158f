"""What does the job store cost, and does it stay linear? 10,000 items of one job against 1,000.

`python -m benchmarks.jobs` submits, runs (without pixels), lists and reads a job of either size, and measures
a tile of the embedded model beside it; `--database postgresql://...` does so on a server, too. It writes the
table of `docs/measurements/jobs.md`. It refuses to know Ray and HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.quality import insert
from serve_app.contracts import UpscaleParams, UpscaleRequest
from serve_app.jobs.records import Lease, NewItem, NewJob, ResultRecord
from serve_app.jobs.store import Store
from serve_app.local import local_upscaler
from serve_app.settings import Settings
from serve_app.testing import photo_like, png_bytes

T = TypeVar("T")

PAGE = Path("docs/measurements/jobs.md")
SIZES = (1_000, 10_000)
AT_ONCE = 2
TILE_RUNS = 7
STEPS = ("submit", "run", "list", "events")
_PARAMS = {"scale": 4, "steps": 1, "seed": 7, "output_format": "png", "fidelity": 1.0}
_RESULT = ResultRecord("c" * 64, "image/png", 1152, 768, 900_000, {"params": _PARAMS, "tiles": 24})


@dataclass(frozen=True)
class Row:
    """One job on one database: seconds of each step, by `STEPS`."""

    database: str
    items: int
    seconds: dict[str, float]

    def per_item_ms(self, step: str) -> float:
        """Milliseconds of a step, by item."""
        return self.seconds[step] / self.items * 1000


async def measure(name: str, url: str, count: int) -> Row:
    """Takes one job from its submission to its last event."""
    store = await Store.open(url)
    items = [NewItem(f"{n}.png", _PARAMS, source=f"{n:064x}") for n in range(count)]
    seconds: dict[str, float] = {}

    async def timed(step: str, work: Awaitable[T]) -> T:
        began = time.perf_counter()
        found = await work
        seconds[step] = time.perf_counter() - began
        return found

    job, _ = await timed("submit", store.submit(NewJob(f"tenant-{count}"), items))
    await timed("run", _run(store))
    await timed("list", _list(store, job.id))
    await timed("events", _read(store, job.id))
    assert (await store.job(job.id)).counts.succeeded == count
    await store.close()
    return Row(name, count, seconds)


async def _run(store: Store) -> None:
    """What a runner says of an item of one tile: claimed, on its way, kept, done."""
    while leases := await store.claim("runner", 60, AT_ONCE):
        for lease in leases:
            await _work(store, lease)


async def _work(store: Store, lease: Lease) -> None:
    await store.checkpoints(lease)
    await store.touch_blob("d" * 64, 100)
    await store.checkpoint(lease, "0-tile", "d" * 64)
    await store.progress(lease, 1, 1)
    await store.succeed(lease, _RESULT)


async def _list(store: Store, job_id: str) -> None:
    after = -1
    while page := await store.items(job_id, after=after, limit=100):
        after = page[-1].number


async def _read(store: Store, job_id: str) -> None:
    after = 0
    while page := await store.events(job_id, after, limit=200):
        after = page[-1].sequence


async def tile_seconds() -> float:
    """The median of one tile of the embedded model, denoised in this process."""
    image = png_bytes(photo_like(72, 72))
    async with local_upscaler(Settings()) as upscaler:
        found = []
        for run in range(TILE_RUNS):
            params = UpscaleParams(scale=4, seed=run)
            request = UpscaleRequest(image=image, params=params, request_id=str(run))
            result = await upscaler.upscale(request)
            assert result.tiles == 1
            found.append(result.timings_s["denoise"])
    return median(found[1:])


def table(rows: list[Row], tile_s: float) -> list[str]:
    """The page's table, and what a tile took."""
    lines = [
        "| database | items | submit, ms an item | run | list | events | run, of a tile |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = " | ".join(f"{row.per_item_ms(step):.2f}" for step in STEPS)
        share = row.seconds["run"] / row.items / tile_s
        lines.append(f"| {row.database} | {row.items} | {times} | {share:.1%} |")
    for small, large in zip(rows[::2], rows[1::2], strict=True):
        ratios = (large.per_item_ms(s) / small.per_item_ms(s) for s in STEPS)
        told = " | ".join(f"{ratio:.2f}x" for ratio in ratios)
        lines.append(f"| {small.database} | {large.items} against {small.items} | {told} | |")
    return [
        *lines,
        "",
        f"A tile of the embedded model took {tile_s * 1000:.0f} ms in the same run.",
    ]


async def _main(databases: list[str], sizes: tuple[int, ...]) -> list[str]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for url in ["", *databases]:
            for count in sizes:
                place = url or f"sqlite:///{folder}/{count}.db"
                rows.append(await measure(place.split(":")[0], place, count))
    return table(rows, await tile_seconds())


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--database", action="append", default=[], help="a PostgreSQL's URL")
    parser.add_argument("--sizes", type=int, nargs=2, default=SIZES)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args(argv)
    lines = asyncio.run(_main(chosen.database, tuple(chosen.sizes)))
    print("\n".join(lines))
    chosen.page.write_text(insert(chosen.page.read_text(), "jobs", "\n".join(lines)))


if __name__ == "__main__":
    main()
