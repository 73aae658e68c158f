"""What one tile costs on this machine: encode, steps and decode, by threads and by batch.

Each row runs in a process of its own, because thread pools and memory formats linger. The numbers are the
least of several repetitions, so that a passing disturbance does not count. Says why `engine.max_batch` and
`engine.vae_batch` are what they are. Writes docs/measurements/tile.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from serve_app.engine.task import Entry
from serve_app.models.catalog import find_model, read_model_info
from serve_app.settings import EngineSettings

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "measurements" / "tile.md"
REPETITIONS = 6
ARMS = [
    (threads, batch, dtype)
    for dtype in ("float32", "bfloat16")
    for threads in (1, 2)
    for batch in (1, 2, 4)
]


def measure(threads: int, batch: int, dtype: str) -> list[float]:
    """Milliseconds for each tile of a batch: encode, all steps, decode."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from benchmarks.serving import pictures, tiles_of
    from serve_app.diffusion.loader import choose_device, load_model
    from serve_app.engine.runner import FluxRunner

    settings = EngineSettings(max_batch=batch, vae_batch=batch)
    model = load_model(find_model("mini"), *choose_device("cpu", dtype))
    runner = FluxRunner(model, settings, threads)
    runner.open()
    work = [tile for tiles in tiles_of(pictures(4)) for tile in tiles][:batch]
    rounds: list[list[float]] = []
    for _ in range(REPETITIONS):
        entries = [
            Entry(i, task, *runner.plan(task, given)) for i, (task, given) in enumerate(work)
        ]
        times = [time.perf_counter()]
        runner.encode(entries, [given for _, given in work], batch)
        times.append(time.perf_counter())
        for step in range(entries[0].steps):
            for entry in entries:
                entry.steps_done = step
            runner.step(entries, batch)
        times.append(time.perf_counter())
        runner.decode(entries, batch)
        times.append(time.perf_counter())
        rounds.append([(b - a) / batch * 1000 for a, b in pairwise(times)])
    return [min(phase) for phase in zip(*rounds, strict=True)]


def main() -> None:
    """Measures every row and writes the table; `--only` measures one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a row, as 2,1,float32")
    options = parser.parse_args()
    if options.only:
        threads, batch, dtype = options.only.split(",")
        print(json.dumps(measure(int(threads), int(batch), dtype)))
        return
    info = read_model_info(find_model("mini"))
    lines = [
        "# What a tile costs on a CPU",
        "",
        f"`python -m benchmarks.tile`: one {info.tile_px} px tile of the embedded model at its default of "
        f"{info.defaults.steps} step(s), on {os.cpu_count()} cores ({platform.machine()}); milliseconds for "
        f"each tile, the least of {REPETITIONS} repetitions.",
        "",
        "| type | threads | tiles together | encode | steps | decode | sum |",
        "|---|---|---|---|---|---|---|",
    ]
    for threads, batch, dtype in ARMS:
        command = [sys.executable, "-m", "benchmarks.tile", "--only", f"{threads},{batch},{dtype}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        phases = json.loads(done.stdout.splitlines()[-1])
        cells = " | ".join(f"{value:.0f}" for value in (*phases, sum(phases)))
        lines.append(f"| {dtype} | {threads} | {batch} | {cells} |")
        print(lines[-1], flush=True)
    REPORT.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
