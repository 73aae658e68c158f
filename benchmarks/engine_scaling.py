"""e. Do 1, 2, 4 and 8 denoisers share one picture of 64 tiles while small pictures come in between?

The whole Ray application with denoisers that sleep as long as an H200 would compute (`testing_app`), so that
many GPUs fit two cores; what is measured is all else: routing, messages, the conductor and the scheduler. Each
replica writes down its turns, on the machine's one clock.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from benchmarks.chart import bars
from benchmarks.cluster import local_cluster
from serve_app.app import APP_NAME
from serve_app.contracts import Priority
from serve_app.testing import FAKE_MODEL, photo_like, png_bytes
from serve_app.testing_app import PacedSettings, build_paced_app
from serve_app.testing_engine import roofline_s

TITLE = "One picture over many denoisers"
PACED_AS_PX = 1024
MAX_BATCH = 4
TILES_AT_ONCE = 64  # as in configs/kuberay.yaml
SMALL_SHARE = 0.1
"""Share of all denoisers' time that the small pictures ask for."""


@dataclass(frozen=True)
class Load:
    """What is sent: tiles along a side of the large picture, steps of each tile, and the pace."""

    side: int
    steps: int
    pace: float

    def tile_s(self) -> float:
        """Seconds of one tile on one denoiser, alone; encoding and decoding are a step's time each."""
        return (self.steps + 2) * roofline_s(PACED_AS_PX, 1) * self.pace


def measure(quick: bool, rounds: int) -> dict[str, Any]:
    """Times and busy shares by the number of replicas."""
    load = Load(4, 4, 0.1) if quick else Load(8, 28, 1)
    counts = (1, 2) if quick else (1, 2, 4, 8)
    found: dict[str, list[dict[str, float]]] = {str(count): [] for count in counts}
    with local_cluster(cpus=16):
        for number in range(rounds):
            for count in counts:
                seen = run_once(load, count)
                found[str(count)].append(seen)
                print(f"e, round {number + 1}: {count} replicas: {seen}", flush=True)
    facts = {"tiles": load.side**2, "steps": load.steps, "pace": load.pace, "rounds": rounds}
    return facts | {"runs": found}


def run_once(load: Load, replicas: int) -> dict[str, float]:
    """Starts the application, sends the load, and reads what the replicas wrote down."""
    with tempfile.TemporaryDirectory() as folder:
        settings = PacedSettings.parse(
            {
                "paced_as_px": PACED_AS_PX,
                "pace": load.pace,
                "turns_to": folder,
                "engine": {"max_batch": MAX_BATCH},
                "requests": {"tiles_at_once": TILES_AT_ONCE},
                "deployments": {"denoiser_replicas": replicas},
            }
        )
        serve.run(build_paced_app(settings), name=APP_NAME, route_prefix=None)
        handle = serve.get_app_handle(APP_NAME)
        try:
            seen = asyncio.run(_send(handle, load, replicas))
        finally:
            serve.delete(APP_NAME)
        logs = [_read(path) for path in sorted(Path(folder).iterdir())]
    request_id = seen.pop("request_id")
    return seen | {"busy": busy_share(logs, request_id, replicas)}


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def _send(handle: DeploymentHandle, load: Load, replicas: int) -> dict[str, Any]:
    upscale = handle.upscale
    stride = (FAKE_MODEL.tile_px - FAKE_MODEL.overlap_px) // 4
    large_px = stride * (load.side - 1) + FAKE_MODEL.tile_px // 4
    large, small = (png_bytes(photo_like(px, px)) for px in (large_px, FAKE_MODEL.tile_px // 4))
    params = {"scale": 4, "steps": load.steps, "seed": 1}
    await upscale.remote(small, params | {"steps": 1})  # warm
    interval_s = load.tile_s() / (SMALL_SHARE * replicas)
    waits: list[float] = []

    async def one_small() -> None:
        started = time.perf_counter()
        await upscale.remote(small, params)
        waits.append(time.perf_counter() - started)

    started = time.perf_counter()
    job = asyncio.ensure_future(_await(upscale.remote(large, params, None, Priority.BATCH.value)))
    smalls: list[asyncio.Task[None]] = []
    while not job.done():
        await asyncio.wait([job], timeout=interval_s)
        if not job.done():
            smalls.append(asyncio.create_task(one_small()))
    picture_s = time.perf_counter() - started
    await asyncio.gather(*smalls)
    result = job.result()
    assert result.tiles == load.side**2
    return {
        "picture_s": picture_s,
        "denoise_s": result.timings_s["denoise"],
        "small_p50_s": statistics.median(waits) if waits else 0.0,
        "small": float(len(waits)),
        "request_id": result.request_id,
    }


async def _await(response: Any) -> Any:
    return await response


def busy_share(logs: Sequence[Sequence[dict[str, Any]]], request_id: str, replicas: int) -> float:
    """How much of the time in which tiles of a request waited the denoisers computed.

    Tiles wait from the first encoding of one until the last one's. A turn counts with the seconds that an
    accelerator would have taken, and only inside that time.

    Args:
        logs: The turns of each replica that had any.
        request_id: Whose tiles wait.
        replicas: All of them, idle ones too.
    """
    turns = [turn for log in logs for turn in log]
    begun = [
        turn["started_s"]
        for turn in turns
        if turn["kind"] == "encode" and any(of == request_id for of, _ in turn["tiles"])
    ]
    start, end = min(begun), max(begun)
    inside = (
        min(turn["started_s"] + turn["took_s"], end) - max(turn["started_s"], start)
        for turn in turns
    )
    busy_s = sum(seconds for seconds in inside if seconds > 0)
    return float(busy_s / (replicas * (end - start)))


def report(found: dict[str, Any]) -> tuple[str, str]:
    """The section's Markdown and its chart."""
    medians = {
        int(count): {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for count, runs in found["runs"].items()
    }
    alone = medians[1]["denoise_s"]
    speed = {count: alone / seen["denoise_s"] for count, seen in medians.items()}
    rows = [
        f"| {count} | {seen['picture_s']:.1f} | {seen['denoise_s']:.1f} | {speed[count]:.2f} | "
        f"**{speed[count] / count:.2f}** | **{seen['busy']:.3f}** | {seen['small_p50_s']:.2f} |"
        for count, seen in medians.items()
    ]
    px = FAKE_MODEL.tile_px
    text = f"""One picture of {found["tiles"]} tiles with priority `batch`, and small interactive ones of a
tile each that ask for {SMALL_SHARE:.0%} of the denoisers' time; {found["steps"]} steps, paced as
{PACED_AS_PX} px tiles on an H200 at {found["pace"]:g} times its seconds, `engine.max_batch` {MAX_BATCH},
`requests.tiles_at_once` {TILES_AT_ONCE};
{found["rounds"]} alternating rounds, medians. The tiles that travel are of {px} px. Busy share: the
denoisers' time spent computing while tiles of the picture waited.

| replicas | picture, s | its tiles, s | speed-up | of linear | busy share | small picture, s |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""
    chart = bars(
        "Speed-up of the picture's tiles",
        {f"{count} replicas": {"measured": speed[count], "linear": count} for count in speed},
    )
    return text, chart
