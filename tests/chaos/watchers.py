"""`python -m tests.chaos.watchers`: a thousand follow one job through one gateway; none misses an event."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from serve_app.jobs.store import Store
from tests.chaos.shop import Shop
from tests.chaos.trial import FORM, pictures, settings_of

_CONNECTING = 50  # at once
_MIB = 2**20


async def follow(url: str, job_id: str, connecting: asyncio.Semaphore, begun: asyncio.Event) -> int:
    """Follows a job to its end over a socket; gives its last event's number, or -1 where one was missing."""
    place = urlsplit(url)
    async with connecting:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        head = (
            f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: tessera\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        status = await reader.readline()
        assert b" 200 " in status, status
        begun.set()
    last = 0
    async for line in reader:
        if line.startswith(b"id: "):
            if int(line[4:]) != last + 1:
                return -1
            last += 1
    writer.close()
    return last


def gateway_mib(shop: Shop) -> float:
    """Memory of the one gateway that nobody else has."""
    [process] = shop.processes("gateway")
    return float(process.memory_full_info().uss / _MIB)


async def run(folder: Path, count: int, items: int) -> dict[str, float]:
    """Starts an application, has a job followed, and says what was seen."""
    settings = settings_of(folder, f"sqlite:///{folder}/jobs.db", pace=1)
    shop = Shop(settings)
    store = await Store.open(settings.jobs.database_url)
    try:
        await asyncio.to_thread(shop.start)
        job_id = await _submitted(shop, items)
        before, began = gateway_mib(shop), time.monotonic()
        connecting = asyncio.Semaphore(_CONNECTING)
        begun = [asyncio.Event() for _ in range(count)]
        following = [
            asyncio.create_task(follow(shop.url, job_id, connecting, event)) for event in begun
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        connected_s = time.monotonic() - began
        most = before
        while not all(task.done() for task in following):
            most = max(most, gateway_mib(shop))
            await asyncio.sleep(1)
        seen = [task.result() for task in following]
        job = await store.job(job_id)
        return {
            "watchers": count,
            "events": job.last_event,
            "whole": sum(last == job.last_event for last in seen),
            "connected_s": round(connected_s, 1),
            "seconds": round(time.monotonic() - began, 1),
            "before_mib": round(before, 1),
            "most_mib": round(most, 1),
            "after_mib": round(gateway_mib(shop), 1),
        }
    finally:
        await asyncio.to_thread(shop.stop)
        await store.close()


async def _submitted(shop: Shop, items: int) -> str:
    files = [("images", (f"{n}.png", data)) for n, data in enumerate(pictures(items))]
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        answer = await http.post("/v1/jobs", files=files, data=FORM)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def main() -> None:
    """Runs it once."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.watchers", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--items", type=int, default=100)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="watch-") as folder:
        print(json.dumps(asyncio.run(run(Path(folder), chosen.count, chosen.items))))


if __name__ == "__main__":
    main()
