"""What the residual cache gains and costs: speed-up and distance by threshold and by number of steps.

Cached and uncached tiles run in turn in one process, so that a disturbance meets both; the speed-up is the
ratio of their steps' seconds, the distance that of the decoded pixels. Says why `residual_cache` of the
embedded model is what it is. Writes docs/measurements/cache.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "measurements" / "cache.md"
PICTURES = [*sorted(ROOT.glob("tests/acceptance/originals/*.webp")), ROOT / "examples/photo.jpg"]
THRESHOLDS = (0.1, 0.15, 0.2, 0.3, 0.4)
STEPS = (4, 8, 16, 50)
AT_STEPS = 28
GREY_LEVEL = 257  # of levels


@dataclass(frozen=True)
class Outcome:
    """One tile, cached against uncached."""

    computed: int
    speed_up: float
    psnr_db: float
    greatest: float


def distance(one: Any, other: Any) -> tuple[float, float]:
    """The PSNR of two tiles of levels, dB, and the greatest difference in grey levels of 256."""
    difference = one.astype(np.float64) - other
    error = float((difference**2).mean())
    psnr = 10 * np.log10(65535**2 / error) if error else float("inf")
    return psnr, float(np.abs(difference).max()) / GREY_LEVEL


def crops(side: int) -> Iterator[Any]:
    """The middle of each photograph, shrunk by 4 and enlarged again: what a ControlNet is given."""
    for path in PICTURES:
        picture = Image.open(path).convert("RGB")
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        crop = picture.crop((left, top, left + side, top + side))
        small = crop.resize((side // 4, side // 4), Image.Resampling.BICUBIC)
        levels = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
        yield levels.astype(np.uint16) * GREY_LEVEL


class Bench:
    """A runner of the embedded model for each threshold, on one set of weights."""

    def __init__(self, threads: int) -> None:
        from serve_app.diffusion.loader import choose_device, load_model
        from serve_app.models.catalog import find_model

        self._model = load_model(find_model("mini"), *choose_device("cpu", "float32"))
        self._threads = threads
        self.info = self._model.info

    def tile(
        self, crop: Any, seed: int, steps: int, threshold: float | None
    ) -> tuple[Any, float, int]:
        """A tile's levels, the seconds of its steps, and how many were computed; without a cache if None."""
        from serve_app.contracts import ResidualCache, UpscaleParams, resolve
        from serve_app.engine.runner import FluxRunner
        from serve_app.engine.task import Entry, TileInputs, TileTask
        from serve_app.settings import EngineSettings
        from serve_app.tiling.geometry import Tile

        cache = threshold and ResidualCache(threshold=threshold)
        info = self.info.model_copy(update={"residual_cache": cache})
        chosen = EngineSettings(max_batch=1, residual_cache=threshold is not None)
        runner = FluxRunner(replace(self._model, info=info), chosen, self._threads)
        params = resolve(UpscaleParams(steps=steps, seed=seed), info, drawn_seed=0)
        task = TileTask("bench", 0, Tile(0, 0, *crop.shape[:2]), params)
        inputs = TileInputs([crop])
        entry = Entry(0, task, *runner.plan(task, inputs))
        runner.encode([entry], [inputs], 1)
        start = time.perf_counter()
        for step in range(steps):
            entry.steps_done = step
            runner.step([entry], 1)
        seconds = time.perf_counter() - start
        row = runner._rows[0]
        computed = sum(row.at(step).due for step in range(steps))
        return runner.decode([entry], 1)[0], seconds, computed

    def compare(self, steps: int, thresholds: tuple[float, ...]) -> dict[float, list[Outcome]]:
        """Each picture uncached, then at each threshold, then uncached again."""
        found: dict[float, list[Outcome]] = {threshold: [] for threshold in thresholds}
        for seed, crop in enumerate(crops(self.info.tile_px)):
            plain, first_s, _ = self.tile(crop, seed, steps, None)
            cached = {t: self.tile(crop, seed, steps, t) for t in thresholds}
            _, second_s, _ = self.tile(crop, seed, steps, None)
            for threshold, (levels, seconds, computed) in cached.items():
                speed_up = (first_s + second_s) / 2 / seconds
                found[threshold].append(Outcome(computed, speed_up, *distance(levels, plain)))
        return found


def cells(outcomes: list[Outcome]) -> str:
    """A row's numbers: computed steps, median speed-up, PSNR (least and median), greatest difference."""
    psnr = [outcome.psnr_db for outcome in outcomes]
    return (
        f"{outcomes[0].computed} | {median(o.speed_up for o in outcomes):.2f} | {min(psnr):.1f} | "
        f"{median(psnr):.1f} | {max(o.greatest for o in outcomes):.0f}"
    )


HEAD = "computed | speed-up | least PSNR, dB | median PSNR, dB | greatest difference, grey levels |"
RULE = "|---|---|---|---|---|---|"


def main() -> None:
    """Measures all thresholds and step counts and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=REPORT)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(options.threads)
    bench = Bench(options.threads)
    cache = bench.info.residual_cache
    if cache is None:
        parser.error("the embedded model states no residual_cache")
    lines = [
        "# The residual cache",
        "",
        f"`python -m benchmarks.cache`: {len(PICTURES)} tiles of {bench.info.tile_px} px, the embedded model, "
        f"float32, {options.threads} threads on {os.cpu_count()} cores ({platform.machine()}). A tile's steps "
        "with the cache against the same tile's without, before and after it; PSNR and greatest difference "
        "are of the decoded pixels against those of the uncached tile.",
        "",
        f"## By threshold, at {AT_STEPS} steps",
        "",
        f"| threshold | {HEAD}",
        RULE,
    ]
    for threshold, outcomes in bench.compare(AT_STEPS, THRESHOLDS).items():
        mark = " (shipped)" if threshold == cache.threshold else ""
        lines.append(f"| {threshold}{mark} | {cells(outcomes)} |")
        print(lines[-1], flush=True)
    lines += ["", f"## By number of steps, at {cache.threshold}", "", f"| steps | {HEAD}", RULE]
    for steps in STEPS:
        (outcomes,) = bench.compare(steps, (cache.threshold,)).values()
        lines.append(f"| {steps} | {cells(outcomes)} |")
        print(lines[-1], flush=True)
    options.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
