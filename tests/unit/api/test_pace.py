from __future__ import annotations

import pytest

from serve_app.api import pace
from serve_app.api.pace import Pace


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(pace.asyncio, "sleep", sleep)
    return found


async def test_a_picture_of_common_size_hardly_waits(waits: list[float]):
    body = Pace()
    for _ in range(16):
        await body.after(bytes(2**20))
    assert sum(waits) < 0.05


async def test_what_is_large_goes_no_faster_than_its_rate(waits: list[float]):
    body = Pace()
    for _ in range(200):
        await body.after(bytes(2**20))
    assert 200e6 / 100e6 * 0.9 < sum(waits) < 2.2
    assert all(seconds > 0 for seconds in waits)  # each lets others have their turn
