"""Follows one job with many watchers at once over real HTTP: `python -m tests.chaos.watchers`.

Each watcher has a connection of its own through Ray Serve's proxy and must see every event, in order and
without a gap, to the job's end. It is told what they cost the gateway and the proxy in memory of their own, and
whether other callers are still answered meanwhile. Prints Markdown for docs/measurements/chaos.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from serve_app.testing import photo_like, png_bytes
from serve_app.testing_app import PacedSettings
from tests.chaos.shop import Shop

PARTS = ("gateway", "proxy")
MIB = 2**20
FORM = {"scale": "1", "steps": "3", "seed": "3"}
_WAIT_S = 300.0
_OTHERS_S = 10.0  # another caller's patience
_AT_A_TIME = 50  # connections that are opened at once
_EVERY_S = 0.5


@dataclass
class Watched:
    """What became of a trial.

    Attributes:
        watchers: How many there were.
        events: That the job had.
        whole: Watchers that saw all of them, once and in order.
        memory: MiB of each part's own, before, at the most and after.
        others_s: Seconds until another caller had its answer while all watched; none where it had not.
        opened_s: Until all watched.
        seconds: From the job's submission to the last watcher's end.
    """

    watchers: int
    events: int = 0
    whole: int = 0
    memory: dict[str, list[float]] = field(default_factory=dict)
    others_s: dict[str, list[float | None]] = field(default_factory=dict)
    opened_s: float = 0
    seconds: float = 0

    def per_watcher_kib(self, part: str) -> float:
        """KiB of a part's own that one watcher takes at the most."""
        before, most, _ = self.memory[part]
        return (most - before) * 1024 / self.watchers

    def as_markdown(self) -> str:
        """Two tables."""
        rows = [
            f"| {part} | {' | '.join(f'{mib:.0f}' for mib in mibs)} | {self.per_watcher_kib(part):.0f} |"
            for part, mibs in self.memory.items()
        ]
        asked = [
            f"| {name} | {len(took)} | {sum(one is not None for one in took)} | {_middle(took)} |"
            for name, took in self.others_s.items()
        ]
        return "\n".join(
            [
                f"{self.watchers} watchers, {self.whole} of which saw all {self.events} events in order; "
                f"all watched after {self.opened_s:.0f} s, the last ended after {self.seconds:.0f} s; "
                f"{os.cpu_count()} cores.",
                "",
                "| process | before, MiB | at the most, MiB | after, MiB | a watcher, KiB |",
                "|---|---|---|---|---|",
                *rows,
                "",
                "| meanwhile | asked | answered | seconds, median |",
                "|---|---|---|---|",
                *asked,
            ]
        )


def _middle(took: list[float | None]) -> str:
    answered = [one for one in took if one is not None]
    return f"{statistics.median(answered):.2f}" if answered else "-"


def settings_in(folder: Path, pace: float) -> PacedSettings:
    """An application whose jobs are in a folder."""
    jobs = {"database_url": f"sqlite:///{folder}/jobs.db", "blobs_url": str(folder / "blobs")}
    return PacedSettings.model_validate(
        {"pace": pace, "deployments": {"denoiser_cpus": 0.1}, "jobs": jobs}
    )


def private(shop: Shop) -> dict[str, float]:
    """MiB that the gateway and the proxy share with nobody."""
    return {
        part: sum(one.memory_full_info().uss for one in shop.processes(part)) / MIB
        for part in PARTS
    }


class Watcher:
    """A client with a connection of its own, as thin as one can be.

    Attributes:
        seen: Sequence numbers as they came.
        finished: Whether the job's end was among them.
        begun: Set with the first event.
    """

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.finished = False
        self.begun = asyncio.Event()

    async def follow(self, url: httpx.URL, opening: asyncio.Semaphore) -> None:
        """Reads a stream of server-sent events to its end."""
        async with opening:
            reader, writer = await asyncio.open_connection(url.host, url.port)
            told = f"GET {url.raw_path.decode()} HTTP/1.1\r\nHost: {url.netloc.decode()}\r\n\r\n"
            writer.write(told.encode())
            while (await reader.readline()).strip():  # the head
                pass
        try:
            text = b""
            while size := int(await reader.readline(), 16):
                text += (await reader.readexactly(size + 2))[:-2]
                *whole, text = text.split(b"\n")
                for line in whole:
                    self._hear(line.decode())
        finally:
            writer.close()

    def _hear(self, line: str) -> None:
        name, _, value = line.partition(": ")
        if name == "id":
            self.seen.append(int(value))
            self.begun.set()
        self.finished |= (name, value) == ("event", "job.finished")


async def timed(ask: Callable[[], Awaitable[httpx.Response]]) -> float | None:
    """Seconds until an answer of 200; None where there is none in time."""
    began = time.monotonic()
    try:
        answer = await ask()
    except httpx.TimeoutException:
        return None
    return time.monotonic() - began if answer.status_code == 200 else None


async def watch(shop: Shop, watchers: int, pictures: int, side_px: int) -> Watched:
    """Submits a job, has it watched, and asks for other things meanwhile."""
    found = Watched(watchers)
    images = [png_bytes(photo_like(side_px, side_px, seed=seed)) for seed in range(pictures)]
    async with httpx.AsyncClient(base_url=shop.url, timeout=_OTHERS_S) as http:
        picture = {"image": images[0]}
        asked = {
            "GET /v1/jobs": lambda: http.get("/v1/jobs"),
            "GET /readyz": lambda: http.get("/readyz"),
            "POST /v1/upscale": lambda: http.post("/v1/upscale", files=picture, data=FORM),
        }
        await http.post("/v1/upscale", files=picture, data=FORM, timeout=_WAIT_S)  # all is warm
        before = private(shop)
        began = time.monotonic()
        files = [("images", (f"{at}.png", data)) for at, data in enumerate(images)]
        answer = await http.post("/v1/jobs", files=files, data=FORM, timeout=_WAIT_S)
        job_id: str = answer.raise_for_status().json()["id"]
        all_of_them = [Watcher() for _ in range(watchers)]
        opening, place = (
            asyncio.Semaphore(_AT_A_TIME),
            httpx.URL(f"{shop.url}/v1/jobs/{job_id}/events"),
        )
        following = [asyncio.create_task(one.follow(place, opening)) for one in all_of_them]
        begun = asyncio.gather(*(one.begun.wait() for one in all_of_them))
        async with asyncio.timeout(_WAIT_S):
            await begun
        found.opened_s = time.monotonic() - began
        most = before
        ended = asyncio.gather(*following)
        found.others_s = {name: [] for name in asked}
        while not ended.done() and time.monotonic() < began + _WAIT_S:
            for name, ask in asked.items():
                found.others_s[name].append(await timed(ask))
            now = await asyncio.to_thread(private, shop)
            most = {part: max(most[part], now[part]) for part in PARTS}
            await asyncio.wait([ended], timeout=_EVERY_S)
        async with asyncio.timeout(_WAIT_S):
            await ended
        found.seconds = time.monotonic() - began
        found.events = (await http.get(f"/v1/jobs/{job_id}")).json()["last_event"]
    await asyncio.sleep(5)
    after = await asyncio.to_thread(private, shop)
    found.memory = {part: [before[part], most[part], after[part]] for part in PARTS}
    whole = list(range(1, found.events + 1))
    found.whole = sum(one.finished and one.seen == whole for one in all_of_them)
    return found


def main() -> None:
    """Serves, watches and tells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--side-px", type=int, default=400)
    parser.add_argument("--pace", type=float, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="watchers-") as folder:
        shop = Shop(settings_in(Path(folder), options.pace))
        try:
            shop.start()
            found = asyncio.run(watch(shop, options.watchers, options.pictures, options.side_px))
        finally:
            shop.stop()
    print(found.as_markdown())


if __name__ == "__main__":
    main()
