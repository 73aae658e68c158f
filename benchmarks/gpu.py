"""What a step and a tile of FLUX.1-dev with its ControlNet cost on a GPU, beside diffusers' own pipeline.

Full size, random weights (`gpu_model`), through the same runner as production. Each way to run is a fresh model
in the same process; diffusers' pipeline is measured in every invocation, so that each ratio is of one run. The
rows are kept beside the report, and another invocation on the same machine adds to them. A row is the median of
its steps. Writes docs/measurements/gpu.md.
"""

from __future__ import annotations

import argparse
import gc
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_model import FULL, TINY, Shape, build, diffusers_pipeline
from benchmarks.gpu_report import BASELINE, Measured, compare, page, write
from serve_app.contracts import UpscaleParams, resolve
from serve_app.diffusion.loader import FluxModel
from serve_app.engine.runner import FluxRunner
from serve_app.engine.task import Entry, TileInputs, TileTask
from serve_app.errors import ConfigurationError
from serve_app.levels import TOP_LEVEL
from serve_app.models.flops import image_tokens, step_flop
from serve_app.settings import EngineSettings
from serve_app.tiling.geometry import Tile

REPORT = Path(__file__).parents[1] / "docs" / "measurements" / "gpu.md"
ARMS: dict[str, dict[str, Any]] = {
    "eager": {},
    "compile": {"compile": True},
    "graphs": {"cuda_graphs": True},
    "compile+graphs": {"compile": True, "cuda_graphs": True},
    "fp8": {"compile": True, "quantization": "fp8"},
    "cache": {"residual_cache": True},
    "offload": {"offload": True},
}
_PRODUCT = 8192  # side of the matrices whose product gives the roofline

# seconds of each step, of encode and decode, steps of a tile, share of steps computed
_Timed = tuple[list[float], float, int, float]


class Bench:
    """Measures rows on one device.

    Args:
        shape: Of the model.
        device: Where.
        steps: Steps that are timed of each row; the cache always runs all of them.
        attention: A backend for every way to run, diffusers' included.
    """

    def __init__(
        self, shape: Shape, device: torch.device, steps: int, attention: str | None
    ) -> None:
        self._shape = shape
        self._device = device
        self._dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._steps = steps
        self._attention = attention
        self.roofline_flops = self._product_flops()

    def rows(self, arm: str, tiles: list[int], batches: list[int]) -> Iterator[Measured]:
        """Measures one way to run; a setting that cannot be had here gives one row that says why."""
        largest = max(batches)
        engine = EngineSettings(
            max_batch=largest, vae_batch=1, attention=self._attention, **ARMS.get(arm, {})
        )
        try:
            model = build(self._shape, engine, self._device, self._dtype, max(tiles))
            run = self._pipeline(model) if arm == BASELINE else self._runner(model, engine)
        except ConfigurationError as error:
            yield Measured(arm, 0, 0, note=error.detail)
            return
        for tile_px in tiles:
            for batch in batches:
                yield self._row(run, model, arm, tile_px, batch)

    def _row(
        self, run: Callable[..., Any], model: FluxModel, arm: str, tile_px: int, batch: int
    ) -> Measured:
        found = Measured(arm, tile_px, batch)
        try:
            run(tile_px, batch)  # warms, compiles and records
            self._reset_memory()
            steps, around_s, total, found.computed = run(tile_px, batch)
        except torch.OutOfMemoryError:
            found.note = "out of memory"
            torch.cuda.empty_cache()
            return found
        found.step_s = median(steps) if arm != "cache" else sum(steps) / len(steps)
        found.tile_s = (total * found.step_s + around_s) / batch
        found.memory_gib = self._memory()
        tokens = image_tokens(tile_px, tile_px, model.info.align_px)
        nets = [net.config for net in model.controlnets.values()]
        flop = step_flop(model.transformer.config, nets, tokens, self._shape.text_tokens)
        found.roofline = batch * flop / found.step_s / self.roofline_flops
        return found

    def _runner(self, model: FluxModel, engine: EngineSettings) -> Callable[..., Any]:
        """Tiles through the engine's runner."""
        runner = FluxRunner(model, engine, torch.get_num_threads())

        def run(tile_px: int, batch: int) -> _Timed:
            params = resolve(UpscaleParams(), model.info, drawn_seed=0)
            tile = Tile(0, 0, tile_px, tile_px)
            inputs = TileInputs([_picture(tile_px)])
            task = TileTask("bench", 0, tile, params)
            entries = [Entry(n, task, *runner.plan(task, inputs)) for n in range(batch)]
            skipped_before = runner.rows_skipped
            times = [self._now()]
            for entry in entries:
                runner.encode([entry], [inputs], 1)
            times.append(self._now())
            taken = params.steps if engine.residual_cache else min(self._steps, params.steps)
            for step in range(taken):
                for entry in entries:
                    entry.steps_done = step
                runner.step(entries, batch)
                times.append(self._now())
            for entry in entries:
                runner.decode([entry], 1)
            end = self._now()
            for entry in entries:
                runner.drop(entry.id)
            steps = [float(s) for s in np.diff(times[1:])]
            skipped = (runner.rows_skipped - skipped_before) / (taken * batch)
            return steps, times[1] - times[0] + end - times[-1], params.steps, 1 - skipped

        return run

    def _pipeline(self, model: FluxModel) -> Callable[..., Any]:
        """The same tiles through diffusers' own pipeline, as its users run it."""
        pipeline = diffusers_pipeline(model)
        params = resolve(UpscaleParams(), model.info, drawn_seed=0)

        def run(tile_px: int, batch: int) -> _Timed:
            ends: list[float] = []

            def ended(_pipe: Any, _step: int, _t: Any, given: dict[str, Any]) -> dict[str, Any]:
                ends.append(self._now())
                return given

            picture = torch.from_numpy(_picture(tile_px).astype(np.float32) / TOP_LEVEL * 2 - 1)
            start = self._now()
            pipeline(
                prompt_embeds=model.null_prompt.sequence.expand(batch, -1, -1),
                pooled_prompt_embeds=model.null_prompt.pooled.expand(batch, -1),
                control_image=picture.permute(2, 0, 1)[None].expand(batch, -1, -1, -1),
                height=tile_px,
                width=tile_px,
                num_inference_steps=self._steps + 1,
                guidance_scale=params.guidance_scale,
                controlnet_conditioning_scale=params.control_scale,
                callback_on_step_end=ended,
                output_type="np",
            )
            steps = [float(s) for s in np.diff(ends)]
            around_s = self._now() - start - (self._steps + 1) * median(steps)
            return steps, max(around_s, 0.0), params.steps, 1.0

        return run

    def _product_flops(self) -> float:
        """What matrix products reach on this device in this run, operations a second: the roofline."""
        side = _PRODUCT if self._device.type == "cuda" else _PRODUCT // 16
        one = torch.randn(side, side, device=self._device, dtype=self._dtype)
        seconds = []
        for _ in range(10):
            start = self._now()
            one @ one
            seconds.append(self._now() - start)
        return 2 * side**3 / min(seconds)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _reset_memory(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def _memory(self) -> float:
        cuda = self._device.type == "cuda"
        return torch.cuda.max_memory_allocated(self._device) / 2**30 if cuda else 0.0


def _picture(tile_px: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.random.default_rng(0).integers(0, TOP_LEVEL, (tile_px, tile_px, 3)).astype(np.uint16)


def machine(device: torch.device) -> str:
    """What the numbers were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{name}, torch {torch.__version__}"


def main(argv: list[str] | None = None) -> int:
    """Measures the rows that are asked for and writes the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", default=",".join(ARMS), help=f"some of {', '.join(ARMS)}")
    parser.add_argument("--tiles", help="sides in px, as 512,1024")
    parser.add_argument("--batches", default="1,2,4,8")
    parser.add_argument("--steps", type=int, default=4, help="timed of each row")
    parser.add_argument("--attention", help="a backend of diffusers for every row")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small model: does it run at all?")
    parser.add_argument("--report", type=Path, help=f"default {REPORT.name}; none with --tiny")
    options = parser.parse_args(argv)
    arms = [BASELINE, *options.only.split(",")]
    if unknown := set(arms) - {BASELINE, *ARMS}:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}")
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --tiny --device cpu tries the code")
    shape = TINY if options.tiny else FULL
    tiles = [int(n) for n in options.tiles.split(",")] if options.tiles else list(shape.tiles_px)
    bench = Bench(shape, device, options.steps, options.attention)
    rows: list[Measured] = []
    for arm in arms:
        for row in bench.rows(arm, tiles, [int(n) for n in options.batches.split(",")]):
            rows.append(row)
            print(asdict(row), flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    compare(rows)
    report = options.report or (None if options.tiny else REPORT)
    model = "a tiny stand-in" if options.tiny else "full size, bfloat16, 512 text tokens"
    facts = machine(device), bench.roofline_flops, model
    if report is None:
        print(page(rows, *facts))
    else:
        write(report, rows, *facts, [BASELINE, *ARMS])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
