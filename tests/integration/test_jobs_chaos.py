"""Whoever is killed, every picture has its one result; `python -m tests.chaos` does it at length."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.trial import Report, Trial, run
from tests.postgres import fresh, serving

pytestmark = pytest.mark.integration

ITEMS = 32


def judged(report: Report) -> None:
    assert report.items == ITEMS
    assert min(report.kills.values()) == 2
    assert 0 <= report.again <= report.most_again, report.as_json()


async def test_everything_is_killed_twice_over_sqlite(tmp_path: Path) -> None:
    judged(await run(tmp_path, f"sqlite:///{tmp_path}/jobs.db", None, ITEMS, seed=1))


async def test_everything_and_the_database_are_killed_twice_over_postgresql(tmp_path: Path) -> None:
    with serving() as server:
        report = await run(tmp_path, fresh(server.url), server, ITEMS, seed=2)
    judged(report)
    assert report.kills["database"] == 2


async def test_the_power_is_cut_in_the_midst_of_fifty_jobs(tmp_path: Path) -> None:
    async def cut(trial: Trial, sources: Sequence[Sequence[bytes]]) -> list[str]:
        ids = [await trial.submit(part, f"fire-{at}") for at, part in enumerate(sources)]
        more = [
            await trial.submit([data], f"one-{n}")
            for n, data in enumerate((list(sources[0]) * 6)[:46])
        ]
        await trial.some_done()
        await asyncio.to_thread(trial.cut_power)
        began = time.monotonic()
        await trial.ended([*ids, *more])
        results = await trial.done_once(ids[0])
        for n, job_id in enumerate(more):
            assert await trial.done_once(job_id) == [results[n % len(results)]]
        trial.report.items = ITEMS
        trial.report.seconds = time.monotonic() - began
        return ids

    report = await run(tmp_path, f"sqlite:///{tmp_path}/jobs.db", None, ITEMS, seed=3, work=cut)
    assert report.again <= report.most_again, report.as_json()
