"""One trial: the same jobs in calm and under fire, and what became of them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from serve_app.contracts import DEFAULT_TENANT
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.patience import patiently
from serve_app.jobs.records import Event, ItemRecord
from serve_app.jobs.states import ItemStatus
from serve_app.jobs.store import Store
from serve_app.jobs.sweep import Sweeper
from serve_app.testing import photo_like, png_bytes
from serve_app.testing_app import PacedSettings
from tests.chaos.shop import Shop
from tests.postgres import Server

JOBS = 4
ITEMS_AT_ONCE, TILES_AT_ONCE, STEPS = 4, 2, 3
FORM = {"scale": "1", "steps": str(STEPS), "seed": "3"}
PARTS = ("runner", "denoiser", "gateway", "controller", "proxy")
TIMES = 2
_TRY_AGAIN = (404, 408, 429, 500, 502, 503, 504)  # of a server that is being killed


def settings_of(folder: Path, database_url: str, pace: float) -> PacedSettings:
    """An application whose jobs, and what its denoisers computed, lie in a folder."""
    turns = folder / "turns"
    turns.mkdir(exist_ok=True)
    jobs = {
        "database_url": database_url,
        "blobs_url": str(folder / "blobs"),
        "lease_s": 5,
        "heartbeat_s": 0.5,
        "poll_s": 0.2,
        "items_at_once": ITEMS_AT_ONCE,
    }
    engine = {"exact": True, "max_batch": 2}
    size = {"denoiser_cpus": 0.1, "denoiser_replicas": 2}
    return PacedSettings.model_validate(
        {
            "pace": pace,
            "paced_as_px": 512,
            "turns_to": str(turns),
            "engine": engine,
            "requests": {"tiles_at_once": TILES_AT_ONCE},
            "deployments": size,
            "jobs": jobs,
        }
    )


def pictures(count: int) -> list[bytes]:
    """Small ones, each its own; every sixth has several tiles."""
    large, small = (420, 300), (90, 120)
    return [png_bytes(photo_like(*(small if n % 6 else large), seed=n)) for n in range(count)]


@dataclass
class Report:
    """What became of a trial.

    Attributes:
        items: Pictures under fire.
        kills: Of each part.
        computed: Tiles that came to their end at a denoiser.
        tiles: Tiles that there are.
        attempts: Attempts at each item, counted.
        swept: Blobs that nobody held at the end, and were swept.
        repeated: Why submissions were sent again: the status of an answer, or that there was none.
        known: Submissions that were found to have been taken in, although nobody had been told.
        seconds: From the first submission to the last result.
    """

    items: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    computed: int = 0
    tiles: int = 0
    attempts: Counter[int] = field(default_factory=Counter)
    swept: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    known: int = 0
    seconds: float = 0

    @property
    def again(self) -> int:
        """Tiles that were computed once more."""
        return self.computed - self.tiles

    @property
    def most_again(self) -> int:
        """The tiles that were in flight at those who were killed, at most."""
        ended = self.kills["runner"] + self.kills["denoiser"] + self.kills["power"]
        return ended * ITEMS_AT_ONCE * TILES_AT_ONCE

    def as_json(self) -> str:
        """One line."""
        told: dict[str, Any] = {
            "items": self.items,
            "kills": dict(self.kills),
            "tiles": self.tiles,
            "again": self.again,
            "most_again": self.most_again,
            "attempts": dict(sorted(self.attempts.items())),
            "orphans_swept": self.swept,
            "submissions_repeated": dict(sorted(self.repeated.items())),
            "submissions_known": self.known,
            "seconds": round(self.seconds, 1),
        }
        return json.dumps(told)


class Trial:
    """Jobs in one application.

    Args:
        shop: Where it runs.
        settings: Of it.
        store: Its store, read beside it.
        chance: Decides moments and victims.
        server: PostgreSQL's, where it is to be killed, too.
    """

    def __init__(
        self,
        shop: Shop,
        settings: PacedSettings,
        store: Store,
        chance: random.Random,
        server: Server | None,
    ) -> None:
        self._shop, self._settings, self._store = shop, settings, store
        self._chance, self._server = chance, server
        self._blobs = Blobs(settings.jobs.blobs_url)
        self._judged: dict[str, list[str]] = {}
        self.report = Report()
        self._told: list[str] = []

    async def submit(self, sources: Sequence[bytes], key: str) -> str:
        """Submits a job, and again under the same key until there is an answer."""
        files = [("images", (f"{at}.png", data)) for at, data in enumerate(sources)]
        async with httpx.AsyncClient(base_url=self._shop.url, timeout=30) as http:
            for _ in range(300):
                why = "no answer"
                with suppress(httpx.TransportError):
                    told = {"Idempotency-Key": key}
                    answer = await http.post("/v1/jobs", files=files, data=FORM, headers=told)
                    if answer.status_code not in _TRY_AGAIN:
                        assert answer.status_code in (200, 202), answer.text
                        self.report.known += answer.status_code == 200
                        return str(answer.json()["id"])
                    why = str(answer.status_code)
                self.report.repeated[why] += 1
                await asyncio.sleep(0.2)
        raise AssertionError("a submission was never answered")

    async def ended(self, ids: Sequence[str], limit_s: float = 300) -> None:
        """Waits for the ends of jobs."""
        ends = time.monotonic() + limit_s
        for job_id in ids:
            while not (await patiently(lambda: self._store.job(job_id))).status.ended:  # noqa: B023
                assert time.monotonic() < ends, f"{job_id} did not end: {await self._done(ids)}"
                await asyncio.sleep(0.2)

    async def under_fire(self, sources: Sequence[Sequence[bytes]]) -> list[str]:
        """Kills everything twice, and waits for all ends; as a gateway dies, a job is on its way in."""
        began = time.monotonic()
        waiting = list(enumerate(sources))
        submitting = [self._submission(waiting) for _ in sources[TIMES:]]
        victims = [*PARTS * TIMES, *["database"] * TIMES * (self._server is not None)]
        self._chance.shuffle(victims)
        parts = sorted(self._chance.uniform(0, 0.8) for _ in victims)
        for victim, part in zip(victims, parts, strict=True):
            await self._until(part * sum(map(len, sources[: len(submitting)])))
            await asyncio.sleep(self._chance.uniform(0, 0.5))
            if victim == "gateway":
                submitting.append(self._submission(waiting))
                await asyncio.sleep(self._chance.uniform(0, 0.3))
            await self._kill(victim)
        ids = [await one for one in submitting]
        await self.ended(ids)
        self.report.items = sum(map(len, sources))
        self.report.seconds = time.monotonic() - began
        return ids

    async def states(self, ids: Sequence[str]) -> set[str]:
        """In which states jobs are."""
        return {(await self._store.job(job_id)).status.value for job_id in ids}

    def cut_power(self) -> None:
        """Kills everything, and starts it again."""
        self.report.kills["power"] += 1
        self._shop.cut_power()
        self._shop.start()

    async def judge(self, ids: Sequence[str], calm: Sequence[str]) -> None:
        """Holds jobs under fire to those in calm: one result each, the same bytes, and nothing left over."""
        for job_id, other in zip(ids, calm, strict=True):
            expected = [_blob(item) for item in await self._items(other)]
            assert await self.done_once(job_id) == expected
        self.report.computed = self._computed(list(self._judged))
        await self._sweep()

    async def done_once(self, job_id: str) -> list[str]:
        """Gives the results of a job each of whose pictures was finished once, and only once."""
        if job_id in self._judged:
            return self._judged[job_id]
        found, events = await self._items(job_id), await self._events(job_id)
        assert {item.status for item in found} == {ItemStatus.SUCCEEDED}
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        kinds = Counter((e.kind, e.data.get("number")) for e in events)
        assert all(kinds["item.succeeded", item.number] == 1 for item in found)
        assert kinds["job.finished", None] == 1
        self._judged[job_id] = [_blob(item) for item in found]
        self.report.attempts.update(item.attempts for item in found)
        self.report.tiles += sum(item.result.details["tiles"] for item in found if item.result)
        return self._judged[job_id]

    async def _sweep(self) -> None:
        """What nobody holds is let go; then files and what is held are the same."""
        jobs = self._settings.jobs.model_copy(update={"orphan_grace_s": 0})
        later = await Store.open(
            jobs.database_url, _tomorrow
        )  # whoever leads sweeping now has left
        try:
            swept = await Sweeper(later, self._blobs, jobs, "judge", _tomorrow).once()
        finally:
            await later.close()
        assert swept is not None
        self.report.swept = swept.blobs
        files = {kept.name async for kept in self._blobs.files()}
        held = await self._store.held_blobs()
        assert files == held
        for name in files:
            await self._blobs.get(name)  # verified
        assert list(Path(jobs.blobs_url).rglob(".*")) == []  # half written

    def _submission(self, waiting: list[tuple[int, Sequence[bytes]]]) -> asyncio.Task[str]:
        at, some = waiting.pop(0)
        return asyncio.create_task(self.submit(some, f"fire-{at}"))

    async def _kill(self, victim: str) -> None:
        self.report.kills[victim] += 1
        self._told.append(victim)
        if victim != "database":
            await asyncio.to_thread(self._shop.kill, victim, self._chance)
            return
        assert self._server is not None
        self._server.kill()
        await asyncio.sleep(self._chance.uniform(0, 2))
        await asyncio.to_thread(self._server.start)

    async def _until(self, done: float) -> None:
        ends = time.monotonic() + 240
        while await self._done() < done:
            assert time.monotonic() < ends, (
                f"nothing moves after {self._told}: {await self._done()}"
            )
            await asyncio.sleep(0.1)

    async def _done(self, ids: Sequence[str] = ()) -> int:
        """Items under fire that have ended."""
        page = await patiently(lambda: self._store.jobs(DEFAULT_TENANT, limit=200))
        fire = [j for j in page.jobs if (j.idempotency_key or "").startswith("fire-")]
        return sum(job.counts.succeeded + job.counts.failed for job in fire)

    async def _items(self, job_id: str) -> list[ItemRecord]:
        return await self._store.items(job_id, limit=10_000)

    async def _events(self, job_id: str) -> list[Event]:
        return await self._store.events(job_id, limit=100_000)

    def _computed(self, ids: Sequence[str]) -> int:
        """How often tiles of jobs came to their end at a denoiser."""
        assert self._settings.turns_to is not None
        found = 0
        for file in Path(self._settings.turns_to).iterdir():
            for row in file.read_text().splitlines():
                turn = _turn(row)
                if turn.get("kind") == "decode":
                    found += sum(tile[0].startswith(tuple(ids)) for tile in turn["tiles"])
        return found


def _tomorrow() -> float:
    return time.time() + 86_400


def _turn(row: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(row)
    except ValueError:  # the last line of one that was killed
        return {}
    return found


def _blob(item: ItemRecord) -> str:
    assert item.result is not None, item.error
    return item.result.blob


async def run(
    folder: Path,
    database_url: str,
    server: Server | None,
    count: int,
    seed: int,
    pace: float = 1,
    work: Callable[[Trial, list[list[bytes]]], Awaitable[list[str]]] | None = None,
) -> Report:
    """A whole trial: in calm, under fire, judged.

    Args:
        folder: For blobs and turns.
        database_url: Of the store.
        server: PostgreSQL's, to be killed.
        count: Pictures.
        seed: Of victims and moments.
        pace: See `PacedSettings`.
        work: What is done to the jobs instead of `Trial.under_fire`.
    """
    settings = settings_of(folder, database_url, pace)
    shop = Shop(settings)
    some = pictures(count)
    sources = [some[at::JOBS] for at in range(JOBS)]
    store = await Store.open(database_url)
    try:
        await asyncio.to_thread(shop.start)
        trial = Trial(shop, settings, store, random.Random(seed), server)
        calm = [await trial.submit(part, f"calm-{at}") for at, part in enumerate(sources)]
        await trial.ended(calm)
        ids = await (trial.under_fire(sources) if work is None else work(trial, sources))
        await trial.judge(ids, calm)
        return trial.report
    finally:
        await asyncio.to_thread(shop.stop)
        await store.close()
