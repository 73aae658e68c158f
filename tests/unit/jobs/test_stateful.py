"""The store against a plain model: random histories of several runners, two processes, and clocks that jump.

What the model says of claims, leases, tokens, counts and events must be what the store does, on either
database.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from serve_app.choices import Priority
from serve_app.errors import IdempotencyConflict, LeaseLost, QuotaExceeded
from serve_app.jobs.records import Lease, NewItem, NewJob, Quotas, ResultRecord
from serve_app.jobs.states import Counts, ItemStatus, job_status
from serve_app.jobs.store import Store
from tests.postgres import fresh
from tests.unit.jobs.conftest import Clock

T = TypeVar("T")

LEASE_S = 30.0
MOST_ATTEMPTS = 3
TENANT_ITEMS = 12
TENANTS = ("a", "b")
RUNNERS = ("r0", "r1", "r2")
RESULT = ResultRecord("c" * 64, "image/png", 1, 2, 3, {})
Q, R, S, F, C = ItemStatus
_RANKS = {Priority.INTERACTIVE: 0, Priority.BATCH: 1}


@dataclass
class Item:
    """What the model knows of an item."""

    status: ItemStatus = Q
    attempts: int = 0
    token: int = 0
    until: float = 0
    available: float = 0
    successes: int = 0
    tiles: dict[str, str] = field(default_factory=dict)


@dataclass
class Job:
    """What the model knows of a job."""

    tenant: str
    priority: Priority
    key: str | None
    digest: str
    cancelled: bool
    items: list[Item]

    @property
    def counts(self) -> Counts:
        found = Counter(item.status for item in self.items)
        return Counts(*(found[status] for status in ItemStatus))

    @property
    def is_open(self) -> bool:
        return any(item.status in (Q, R) for item in self.items)


class StoreMachine(RuleBasedStateMachine):
    """Every rule does a thing to the store and to the model, and compares what both say."""

    make_url: Callable[[], str]

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        url = type(self).make_url()
        self.stores = [
            self.run(Store.open(url, self.clock, most_attempts=MOST_ATTEMPTS)) for _ in range(2)
        ]
        self.jobs: dict[str, Job] = {}
        self.leases: list[Lease] = []  # old ones, too: their holders may not know
        self.claimed_at = dict.fromkeys(TENANTS, 0.0)
        self.hits = 0

    def run(self, awaited: Awaitable[T]) -> T:
        async def waited() -> T:
            return await awaited

        return self.loop.run_until_complete(waited())

    def item(self, lease: Lease) -> Item:
        return self.jobs[lease.item.job_id].items[lease.item.number]

    def holds(self, lease: Lease) -> bool:
        item = self.item(lease)
        return item.status is R and item.token == lease.token

    def said(self, lease: Lease, awaited: Awaitable[Any]) -> bool:
        """Whether a runner's word was taken; the model must agree."""
        try:
            self.run(awaited)
        except LeaseLost:
            assert not self.holds(lease)
            return False
        assert self.holds(lease)
        return True

    # Callers

    @rule(
        tenant=st.sampled_from(TENANTS),
        count=st.integers(1, 4),
        priority=st.sampled_from(list(Priority)),
        key=st.sampled_from([None, "k0", "k1"]),
        digest=st.sampled_from("xy"),
        which=st.integers(0, 1),
    )
    def submit(
        self, tenant: str, count: int, priority: Priority, key: str | None, digest: str, which: int
    ) -> None:
        new = NewJob(tenant, priority=priority, idempotency_key=key, digest=digest)
        items = [NewItem(f"{n}.png", {}, source="a" * 64) for n in range(count)]
        earlier = [j for j in self.jobs.values() if key and (j.tenant, j.key) == (tenant, key)]
        used = sum(i.status in (Q, R) for i in self.items_of(tenant))
        submitting = self.stores[which].submit(new, items, Quotas(items=TENANT_ITEMS))
        if earlier and earlier[0].digest != digest:
            with pytest.raises(IdempotencyConflict):
                self.run(submitting)
        elif not earlier and used + count > TENANT_ITEMS:
            with pytest.raises(QuotaExceeded):
                self.run(submitting)
        else:
            job, is_new = self.run(submitting)
            assert is_new is not bool(earlier)
            if is_new:
                made = [Item(available=self.clock.now) for _ in range(count)]
                self.jobs[job.id] = Job(tenant, priority, key, digest, False, made)

    @precondition(lambda self: self.jobs)
    @rule(pick=st.integers(0, 99), which=st.integers(0, 1))
    def cancel(self, pick: int, which: int) -> None:
        job_id, job = self.chosen(pick)
        self.run(self.stores[which].cancel(job_id))
        if job.is_open:
            job.cancelled = True
            for item in job.items:
                item.status = C if item.status is Q else item.status

    @precondition(lambda self: self.jobs)
    @rule(pick=st.integers(0, 99), which=st.integers(0, 1))
    def retry(self, pick: int, which: int) -> None:
        job_id, job = self.chosen(pick)
        self.run(self.stores[which].retry(job_id))
        job.cancelled = False
        for item in job.items:
            if item.status in (F, C):
                item.status, item.attempts, item.available = Q, 0, self.clock.now

    # Runners

    @rule(runner=st.sampled_from(RUNNERS), most=st.integers(1, 4), which=st.integers(0, 1))
    def claim(self, runner: str, most: int, which: int) -> None:
        found = self.run(self.stores[which].claim(runner, LEASE_S, most))
        self.expire()
        expected = [self.claim_one() for _ in range(most)]
        assert [lease.key for lease in found] == [key for key in expected if key]
        self.take(found)

    @rule(most=st.integers(1, 3))
    def claim_both_at_once(self, most: int) -> None:
        """Two processes: none is taken twice, and none is taken that does not wait."""

        async def both() -> list[list[Lease]]:
            claims = [
                store.claim(runner, LEASE_S, most)
                for store, runner in zip(self.stores, RUNNERS, strict=False)
            ]
            return list(await asyncio.gather(*claims))

        found = [lease for claimed in self.run(both()) for lease in claimed]
        self.expire()
        ready = [key for tenant in TENANTS for key in self.ready(tenant)]
        assert len({lease.key for lease in found}) == len(found)
        assert {lease.key for lease in found} <= set(ready)
        assert len(found) >= min(most, len(ready))
        for lease in found:
            self.start(lease.key)
        self.take(found)

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 1), runner=st.sampled_from(RUNNERS))
    def heartbeat(self, which: int, runner: str) -> None:
        mine = [lease for lease in self.leases if lease.runner == runner]
        # a runner knows each item once: by its newest lease
        mine = list({lease.key: lease for lease in mine}.values())
        heard = self.run(self.stores[which].heartbeat(mine, LEASE_S))
        assert heard.lost == {lease.key for lease in mine if not self.holds(lease)}
        held = [lease for lease in mine if self.holds(lease)]
        given_up = {x.key for x in held if self.jobs[x.item.job_id].cancelled}
        assert heard.cancelled == given_up
        for lease in held:
            self.item(lease).until = self.clock.now + LEASE_S

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 99), which=st.integers(0, 1), tile=st.integers(0, 2))
    def keep(self, pick: int, which: int, tile: int) -> None:
        lease, store = self.lease(pick), self.stores[which]
        self.said(lease, store.progress(lease, tile, 3))
        key, blob = f"{tile}", str(tile) * 64
        if self.said(lease, store.checkpoint(lease, key, blob)):
            self.item(lease).tiles[key] = blob
            assert self.run(store.checkpoints(lease)) == self.item(lease).tiles
            self.hits += len(self.item(lease).tiles)

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 99), which=st.integers(0, 1))
    def succeed(self, pick: int, which: int) -> None:
        lease = self.lease(pick)
        if self.said(lease, self.stores[which].succeed(lease, RESULT)):
            self.finish(lease)

    @precondition(lambda self: len(self.leases) > 1)
    @rule(one=st.integers(0, 99), other=st.integers(0, 99))
    def succeed_both_at_once(self, one: int, other: int) -> None:
        """Two runners hand in, perhaps the same item under an old and a new lease."""
        pair = [self.lease(one), self.lease(other)]
        held = [self.holds(lease) for lease in pair]

        async def both() -> list[Any]:
            handed = [s.succeed(x, RESULT) for s, x in zip(self.stores, pair, strict=True)]
            return list(await asyncio.gather(*handed, return_exceptions=True))

        said = [error is None for error in self.run(both())]
        if pair[0].key == pair[1].key and pair[0].token == pair[1].token:
            assert sum(said) == held[0]
            held[1] = False
        else:
            assert said == held
        for lease, is_held in zip(pair, held, strict=True):
            if is_held:
                self.finish(lease)

    @precondition(lambda self: self.leases)
    @rule(
        pick=st.integers(0, 99),
        which=st.integers(0, 1),
        retryable=st.booleans(),
        delay_s=st.sampled_from([0.0, 5.0]),
    )
    def fail(self, pick: int, which: int, retryable: bool, delay_s: float) -> None:
        lease = self.lease(pick)
        item, job = self.item(lease), self.jobs[lease.item.job_id]
        failing = self.stores[which].fail(lease, {"detail": "x"}, retryable, delay_s)
        if self.said(lease, failing):
            again = retryable and item.attempts < MOST_ATTEMPTS
            item.status = (C if job.cancelled else Q) if again else F
            item.available = self.clock.now + delay_s

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 99), which=st.integers(0, 1), delay_s=st.sampled_from([0.0, 5.0]))
    def release(self, pick: int, which: int, delay_s: float) -> None:
        lease = self.lease(pick)
        item, job = self.item(lease), self.jobs[lease.item.job_id]
        if self.said(lease, self.stores[which].release(lease, delay_s)):
            item.status = C if job.cancelled else Q
            item.attempts -= 1
            item.available = self.clock.now + delay_s

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 99), which=st.integers(0, 1))
    def stop(self, pick: int, which: int) -> None:
        lease = self.lease(pick)
        if self.said(lease, self.stores[which].cancelled(lease)):
            self.item(lease).status = C

    @rule(seconds=st.sampled_from([-3600.0, -7.0, 1.0, 7.0, 31.0, 3600.0]))
    def clock_jumps(self, seconds: float) -> None:
        self.clock.now = max(1.0, self.clock.now + seconds)

    # What holds at all times

    @invariant()
    def counts_are_those_of_the_items(self) -> None:
        for job_id, job in getattr(self, "jobs", {}).items():
            found = self.run(self.stores[0].job(job_id))
            assert found.counts == job.counts
            assert found.status is job_status(job.counts, job.cancelled and job.is_open)
            items = self.run(self.stores[1].items(job_id))
            assert [i.status for i in items] == [i.status for i in job.items]
            assert [i.attempts for i in items] == [i.attempts for i in job.items]

    def teardown(self) -> None:
        """Whatever happened, every item ends once somebody works; then nothing is counted any more."""
        if not hasattr(self, "stores"):
            return
        self.clock.now = max(self.clock.now, 2e6) + 1e6
        for _ in range(2 * MOST_ATTEMPTS):
            leases = self.run(self.stores[0].claim("last", LEASE_S, 1000))
            self.expire()
            while self.claim_one():
                continue
            self.take(leases)
            for lease in leases:
                assert self.said(lease, self.stores[1].succeed(lease, RESULT))
                self.finish(lease)
        for tenant in TENANTS:
            usage = self.run(self.stores[0].usage(tenant))
            assert (usage.jobs, usage.items, usage.pixels) == (0, 0, 0)
        for job_id, job in self.jobs.items():
            assert not job.is_open
            events = self.run(self.stores[0].events(job_id, limit=100_000))
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            told = Counter(e.data["number"] for e in events if e.kind == "item.succeeded")
            assert [told[n] for n in range(len(job.items))] == [i.successes for i in job.items]
            assert max(i.successes for i in job.items) <= 1
        assert self.run(self.stores[0].counts()).checkpoint_hits == self.hits
        for store in self.stores:
            self.run(store.close())
        self.loop.close()

    # The model's own steps

    def chosen(self, pick: int) -> tuple[str, Job]:
        job_id = sorted(self.jobs)[pick % len(self.jobs)]
        return job_id, self.jobs[job_id]

    def lease(self, pick: int) -> Lease:
        return self.leases[-1 - pick % len(self.leases)]

    def items_of(self, tenant: str) -> list[Item]:
        return [i for job in self.jobs.values() if job.tenant == tenant for i in job.items]

    def expire(self) -> None:
        for job in self.jobs.values():
            for item in job.items:
                if item.status is R and item.until < self.clock.now:
                    again = item.attempts < MOST_ATTEMPTS
                    item.status = (C if job.cancelled else Q) if again else F
                    item.available = self.clock.now

    def ready(self, tenant: str) -> list[tuple[str, int]]:
        """A tenant's items that may be taken, in the order in which they are."""
        found = [
            (_RANKS[job.priority], job_id, number)
            for job_id, job in self.jobs.items()
            for number, item in enumerate(job.items)
            if job.tenant == tenant and item.status is Q and item.available <= self.clock.now
        ]
        return [(job_id, number) for _, job_id, number in sorted(found)]

    def claim_one(self) -> tuple[str, int] | None:
        """The item that is taken next."""

        def turn(tenant: str) -> tuple[int, float, str]:
            running = sum(item.status is R for item in self.items_of(tenant))
            return running, self.claimed_at[tenant], tenant

        for tenant in sorted(TENANTS, key=turn):
            if ready := self.ready(tenant):
                self.start(ready[0])
                return ready[0]
        return None

    def start(self, key: tuple[str, int]) -> None:
        job = self.jobs[key[0]]
        item = job.items[key[1]]
        item.status, item.attempts, item.token = R, item.attempts + 1, item.token + 1
        item.until = self.clock.now + LEASE_S
        self.claimed_at[job.tenant] = self.clock.now

    def take(self, leases: list[Lease]) -> None:
        for lease in leases:
            assert self.holds(lease)
            assert lease.item.attempts == self.item(lease).attempts
        self.leases += leases

    def finish(self, lease: Lease) -> None:
        item = self.item(lease)
        item.status = S
        item.successes += 1
        item.tiles = {}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_any_history(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    made = iter(range(10_000))

    def sqlite() -> str:
        return f"sqlite:///{tmp_path}/{next(made)}.db"

    server = request.getfixturevalue("server") if database == "postgresql" else ""
    make_url = sqlite if database == "sqlite" else lambda: fresh(server)
    machine = type("Machine", (StoreMachine,), {"make_url": staticmethod(make_url)})
    bounds = settings(
        max_examples=25,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=bounds)
