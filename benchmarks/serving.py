"""What serving costs: the same pictures through HTTP, through the bare engine, and through diffusers' pipeline.

Three contenders, each in processes of its own, in alternating rounds of one run:

    http      the whole application as `make run` starts it; 4 clients post pictures and receive results
    engine    the pictures' tiles through the engine in process; nothing is decoded, joined or encoded
    pipeline  the pictures' tiles through `FluxControlNetPipeline`, one call after the other

So the first ratio charges HTTP, Ray, decoding, blending, back-projection and encoding to Tessera; the second
shows what a loop over the library's own pipeline would give. Writes docs/measurements/serving.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.contracts import UpscaleParams, resolve
from serve_app.engine.task import TileInputs, TileTask
from serve_app.levels import TOP_LEVEL
from serve_app.local import build_engine
from serve_app.models.catalog import find_model, read_model_info
from serve_app.settings import ImageLimits, Settings
from serve_app.stages.prepare import prepare, strip
from serve_app.testing import photo_like, png_bytes

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "measurements" / "serving.md"
SIDES = ((64, 64), (128, 128), (96, 128), (128, 64))  # px, height and width of the sources; x4
CLIENTS = 4


def pictures(count: int) -> list[bytes]:
    """The workload: encoded sources of four sizes in turn."""
    return [png_bytes(photo_like(*SIDES[i % len(SIDES)], seed=i)) for i in range(count)]


def tiles_of(images: list[bytes]) -> Iterator[list[tuple[TileTask, TileInputs]]]:
    """Each picture's tiles, ready for an engine."""
    model = read_model_info(find_model("mini"))
    for number, image in enumerate(images):
        params = resolve(UpscaleParams(seed=number), model, drawn_seed=0)
        prepared: Any = prepare(image, {}, params, model, ImageLimits(), None)
        found, _, source = prepared
        crops = [
            c
            for row in range(len(found.plan.tops))
            for c in strip(found.plan, params, row, source, ())
        ]
        yield [
            (TileTask(f"bench-{number}", index, tile, params), TileInputs([crop]))
            for index, (tile, crop) in enumerate(zip(found.plan.tiles, crops, strict=True))
        ]


def measure_engine(images: list[bytes]) -> float:
    """Seconds for all tiles of all pictures; four pictures at a time, as four clients would send them."""
    engine = build_engine(Settings())
    waiting = list(tiles_of(images))

    async def client() -> None:
        while waiting:
            await asyncio.gather(*(one(*tile) for tile in waiting.pop()))

    async def one(task: TileTask, inputs: TileInputs) -> None:
        async for _ in engine.denoise(task, inputs):
            pass

    async def run() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return time.perf_counter() - started

    seconds = asyncio.run(run())
    engine.close()
    return seconds


def measure_pipeline(images: list[bytes]) -> float:
    """Seconds for the same tiles through diffusers' own pipeline."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlNetPipeline

    from serve_app.diffusion.loader import load_model

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = load_model(find_model("mini"), torch.device("cpu"), torch.float32)
    pipeline = FluxControlNetPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(model.scheduler_config),
        vae=model.vae,
        transformer=model.transformer,
        controlnet=model.controlnets["controlnet"],
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
    )
    pipeline.set_progress_bar_config(disable=True)

    def one(task: TileTask, inputs: TileInputs) -> None:
        crop = inputs.controls[0]
        pixels = torch.from_numpy(crop.astype(np.float32) / TOP_LEVEL * 2 - 1).permute(2, 0, 1)
        pipeline(
            prompt_embeds=model.null_prompt.sequence,
            pooled_prompt_embeds=model.null_prompt.pooled,
            control_image=pixels[None],
            height=task.tile.height,
            width=task.tile.width,
            num_inference_steps=task.params.steps,
            guidance_scale=task.params.guidance_scale,
            controlnet_conditioning_scale=task.params.control_scale,
            generator=torch.Generator().manual_seed(task.params.seed),
            output_type="np",
        )

    work = [tile for tiles in tiles_of(images) for tile in tiles]
    one(*work[0])  # warm
    started = time.perf_counter()
    for tile in work:
        one(*tile)
    return time.perf_counter() - started


def measure_http(images: list[bytes]) -> float:
    """Seconds for all pictures through a running application, posted by four clients."""
    import httpx

    with _application() as url, httpx.Client(base_url=url, timeout=600) as client:

        def post(numbered: tuple[int, bytes]) -> None:
            seed, image = numbered
            answer = client.post("/v1/upscale", files={"image": image}, data={"seed": seed})
            answer.raise_for_status()

        for warm in enumerate(images[: len(SIDES)]):
            post(warm)
        started = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(post, enumerate(images)))
        return time.perf_counter() - started


@contextmanager
def _application() -> Iterator[str]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = ["--config", "configs/local.yaml", "--port", str(port)]
    command = [sys.executable, "-m", "serve_app.app", *config]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        if not any("Ctrl-C" in line for line in process.stdout):
            raise RuntimeError("the application did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


CONTENDERS = {"pipeline": measure_pipeline, "engine": measure_engine, "http": measure_http}


def run_rounds(rounds: int, count: int) -> dict[str, list[float]]:
    """Runs each contender in a fresh process, in turn, so that a busy minute hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        for name in CONTENDERS:
            command = [
                sys.executable,
                "-m",
                "benchmarks.serving",
                "--only",
                name,
                "--count",
                str(count),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            seconds[name].append(json.loads(done.stdout.splitlines()[-1])["seconds"])
            print(f"round {number + 1}: {name:8} {seconds[name][-1]:6.1f} s", flush=True)
    return seconds


def report(seconds: dict[str, list[float]], count: int) -> str:
    """The table, as Markdown; ratios are of medians."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    tiles = sum(len(tiles) for tiles in tiles_of(pictures(count)))
    rows = [
        f"| {name} | {count / medians[name]:.2f} | {tiles / medians[name]:.2f} | "
        f"{', '.join(f'{value:.1f}' for value in seconds[name])} |"
        for name in CONTENDERS
    ]
    return "\n".join(
        [
            "# What serving costs",
            "",
            f"`make bench`: {count} pictures of 64 to 128 px, x4 with the embedded model's defaults, "
            f"{tiles} tiles, {CLIENTS} clients; {os.cpu_count()} cores, {platform.machine()}. "
            "Each contender runs in processes of its own, in alternating rounds; ratios are of medians.",
            "",
            "| contender | pictures/s | tiles/s | seconds of each round |",
            "|---|---|---|---|",
            *rows,
            "",
            f"HTTP against the bare engine: **{medians['engine'] / medians['http']:.2f}** "
            "(HTTP also decodes, joins, back-projects and encodes).",
            "",
            f"HTTP against the pipeline loop: **{medians['pipeline'] / medians['http']:.2f}**.",
            "",
        ]
    )


def main() -> None:
    """Runs the benchmark, or one contender of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=24, help="pictures in each round")
    parser.add_argument("--only", choices=CONTENDERS, help="one contender, once; prints JSON")
    options: Any = parser.parse_args()
    if options.only:
        seconds = CONTENDERS[options.only](pictures(options.count))
        print(json.dumps({"seconds": seconds}))
        return
    text = report(run_rounds(options.rounds, options.count), options.count)
    print(text)
    REPORT.write_text(text)


if __name__ == "__main__":
    main()
