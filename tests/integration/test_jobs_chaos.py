"""Whoever is killed, every picture has its one result; `python -m tests.chaos` does it at length."""

from __future__ import annotations

import asyncio
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


async def test_everything_and_the_database_are_killed_twice(tmp_path: Path) -> None:
    with serving() as server:
        report = await run(tmp_path, fresh(server.url), server, ITEMS, seed=2)
    judged(report)
    assert report.kills["database"] == 2


async def test_everything_is_killed_twice_and_the_power_is_cut_amid_fifty_jobs(
    tmp_path: Path,
) -> None:
    async def work(trial: Trial, sources: Sequence[Sequence[bytes]]) -> list[str]:
        ids = await trial.under_fire(sources)
        more = [
            await trial.submit([data], f"one-{n}") for n, data in enumerate((sources[0] * 7)[:50])
        ]
        await asyncio.to_thread(trial.cut_power)
        await trial.ended(more)
        assert (await trial.states(more)) == {"succeeded"}
        return ids

    report = await run(tmp_path, f"sqlite:///{tmp_path}/jobs.db", None, ITEMS, seed=1, work=work)
    assert report.kills.pop("power") == 1
    judged(report)
