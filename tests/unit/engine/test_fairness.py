"""Shares over simulated time: a clock that work moves by its measured cost, and nothing else."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.contracts import Priority
from serve_app.engine.scheduler import CostTable, Scheduler
from serve_app.engine.task import Entry, Kind
from serve_app.settings import EngineSettings
from tests.unit.engine.entries import entry

STEPS = 28
BATCH, INTERACTIVE = Priority.BATCH, Priority.INTERACTIVE

# An accelerator without any gain from batching: the hardest case for who shares it.
LINEAR = {(Kind.STEP, n): float(n) for n in (1, 2, 4)} | {
    (Kind.ENCODE, 1): 0.5,
    (Kind.DECODE, 1): 0.5,
}
ALONE_S = 0.5 + STEPS + 0.5


@dataclass
class Simulation:
    """Runs a scheduler; arrivals are told in advance."""

    scheduler: Scheduler
    now: float = 0
    served_s: dict[str, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scheduler.costs = CostTable(LINEAR)
        self._arrivals: list[tuple[float, int, Entry]] = []
        self._ids = itertools.count()
        self._draw = random.Random(0)

    def arrive(self, at: float, **given: object) -> int:
        new = entry(next(self._ids), **{"steps": STEPS} | given)  # type: ignore[arg-type]
        heapq.heappush(self._arrivals, (at, new.id, new))
        return new.id

    def run(self, until: Callable[[], bool]) -> None:
        while not until():
            while self._arrivals and self._arrivals[0][0] <= self.now:
                surplus = self.scheduler.add(heapq.heappop(self._arrivals)[2])
                if surplus is not None:  # comes again after a while, as tiles at a gateway do
                    pause_s = self._draw.uniform(0.5, 1.5)
                    heapq.heappush(self._arrivals, (self.now + pause_s, surplus.id, surplus))
            work = self.scheduler.next()
            if work is None:
                self.now = self._arrivals[0][0]
                continue
            cost = self.scheduler.costs.seconds(work.kind, work.size)
            self.now += cost
            for one in work.entries:
                who = f"{one.task.priority}/{one.task.tenant}/{one.task.request_id}"
                self.served_s[who] = self.served_s.get(who, 0) + cost / len(work.entries)
                if work.kind is Kind.DECODE:
                    self.ended[one.id] = self.now
            self.scheduler.settle(work, ())

    def share_of(self, prefix: str) -> float:
        mine = sum(s for who, s in self.served_s.items() if who.startswith(prefix))
        return mine / sum(self.served_s.values())


def simulation(max_batch: int = 4, batch_share: float = 0.2, max_waiting: int = 1000) -> Simulation:
    sizes = EngineSettings(max_batch=max_batch, max_waiting=max_waiting, batch_share=batch_share)
    return Simulation(Scheduler(sizes))


def test_an_interactive_tile_among_batch_tiles_takes_hardly_longer_than_alone():
    found = simulation()
    for _ in range(36):
        found.arrive(0, priority=BATCH, request_id="job")
    asked = [found.arrive(10 + 70.3 * n, request_id=f"i{n}") for n in range(12)]
    found.run(until=lambda: all(one in found.ended for one in asked))
    latencies = [found.ended[one] - (10 + 70.3 * n) for n, one in enumerate(asked)]
    most_wait_s = 4 + 0.5  # the step that was running, and the batch's own share:
    assert max(latencies) <= ALONE_S / (1 - 0.2) + 2 * most_wait_s
    assert max(latencies) <= 1.5 * ALONE_S


def test_batch_keeps_its_share_while_interactive_tiles_never_end():
    for share in (0.1, 0.2, 0.5):
        found = simulation(batch_share=share)
        for _ in range(200):
            found.arrive(0, priority=BATCH, request_id="job")
            found.arrive(0, request_id="busy")
        found.run(until=lambda found=found: found.now > 2000)  # type: ignore[misc]
        assert abs(found.share_of("batch/") - share) < 0.02


def test_batch_gets_all_when_nobody_else_asks():
    found = simulation()
    jobs = [found.arrive(0, priority=BATCH) for _ in range(8)]
    found.run(until=lambda: len(found.ended) == len(jobs))
    assert found.now == 8 * ALONE_S


def test_a_tenant_with_500_tiles_does_not_starve_one_with_1():
    for priority in Priority:
        found = simulation()
        for _ in range(500):
            found.arrive(0, tenant="many", request_id="large", priority=priority)
        one = found.arrive(1000, tenant="one", request_id="small", priority=priority)
        found.run(until=lambda found=found, one=one: one in found.ended)  # type: ignore[misc]
        # four places: it waits until one is free, then shares the accelerator with three others
        assert found.ended[one] - 1000 <= 2 * 4 * ALONE_S
        assert len(found.ended) < 60


def test_tenants_share_alike_whatever_they_have_waiting():
    found = simulation()
    for tenant, count in {"a": 400, "b": 100, "c": 50}.items():
        for number in range(count):
            found.arrive(0, tenant=tenant, request_id=f"{tenant}{number % 7}")
    found.run(until=lambda: found.now > 3000)
    for tenant in "abc":
        assert abs(found.share_of(f"interactive/{tenant}/") - 1 / 3) < 0.05


def test_requests_of_one_tenant_share_alike_too():
    found = simulation()
    for number in range(300):
        found.arrive(0, request_id="large" if number < 250 else "small")
    found.run(until=lambda: found.now > 2500)
    assert abs(found.share_of("interactive/tenant/small") - 1 / 2) < 0.06


def test_short_tiles_weigh_less_than_long_ones():
    found = simulation()
    for _ in range(300):
        found.arrive(0, tenant="short", steps=4)
        found.arrive(0, tenant="long", steps=50)
    found.run(until=lambda: found.now > 2500)
    assert abs(found.share_of("interactive/short/") - 1 / 2) < 0.06


def test_a_rare_tile_size_is_not_starved_by_the_common_one():
    found = simulation()
    rare = found.arrive(5, side_px=16, request_id="rare")
    for _ in range(200):
        found.arrive(0, request_id="common")
    found.run(until=lambda: rare in found.ended)
    assert found.now <= 3 * 4 * ALONE_S


def test_late_comers_do_not_pay_for_the_past():
    """Who was alone for long has no debt when others come, and they no credit."""
    found = simulation()
    for _ in range(400):
        found.arrive(0, tenant="early")
        found.arrive(4000, tenant="late")
    found.run(until=lambda: found.now > 4000)
    found.served_s.clear()
    found.run(until=lambda: found.now > 7000)
    assert abs(found.share_of("interactive/late/") - 1 / 2) < 0.05


def test_a_large_request_goes_on_while_small_ones_never_end():
    found = simulation()
    for _ in range(200):
        found.arrive(0, request_id="large")
    for number in range(400):
        found.arrive(20.0 * number, request_id=f"small{number}")
    found.run(until=lambda: found.now > 4000)
    # more small ones wait all the time, over 60 at the end; each is somebody's as good as the large one
    assert found.share_of("interactive/tenant/large") > 0.04


def test_a_full_queue_costs_the_one_who_fills_it():
    """Tiles that find it full come again by chance; the one of a small request must not have to."""
    for tenant in ("tenant", "another"):
        found = simulation(max_waiting=28)
        for _ in range(200):
            found.arrive(0, request_id="large")
        small = found.arrive(500, request_id="small", tenant=tenant)
        found.run(until=lambda found=found, small=small: small in found.ended)  # type: ignore[misc]
        assert found.ended[small] - 500 <= (4 + 1) * ALONE_S
