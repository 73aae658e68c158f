"""Any history of arrivals, cancels, failures and turns: nobody is lost or waits for ever, no rule is broken."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serve_app.contracts import Priority
from serve_app.engine.scheduler import CostTable, Scheduler, Work, static_sizes
from serve_app.engine.task import Entry, Kind, Phase
from serve_app.settings import EngineSettings
from tests.unit.engine.entries import entry

PRIORITIES = st.sampled_from(list(Priority))


class Model(RuleBasedStateMachine):
    """Adds, cancels and fails entries at random and keeps account of each."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, Entry] = {}
        self.gone: set[int] = set()
        self.next_id = 0

    @initialize(
        max_batch=st.integers(1, 6),
        vae_batch=st.integers(1, 3),
        max_waiting=st.integers(1, 5),
        exact=st.booleans(),
        growth=st.floats(0, 2),
    )
    def build(
        self, max_batch: int, vae_batch: int, max_waiting: int, exact: bool, growth: float
    ) -> None:
        chosen = EngineSettings(
            max_batch=max_batch, vae_batch=vae_batch, max_waiting=max_waiting, exact=exact
        )
        self.settings = chosen
        self.scheduler = Scheduler(chosen)
        self.sizes = static_sizes(max_batch, exact)
        costs = {(Kind.STEP, n): 1 + growth * (n - 1) for n in self.sizes}
        self.scheduler.costs = CostTable(costs)

    def waiting(self, priority: Priority) -> int:
        return sum(
            one.phase is Phase.WAITING and one.task.priority is priority
            for one in self.alive.values()
        )

    @rule(
        steps=st.integers(0, 4),
        side_px=st.sampled_from([8, 16]),
        lora=st.sampled_from(["", "turbo"]),
        priority=PRIORITIES,
        tenant=st.sampled_from("ab"),
        request_id=st.sampled_from("xyz"),
    )
    def add(
        self, steps: int, side_px: int, lora: str, priority: Priority, tenant: str, request_id: str
    ) -> None:
        new = entry(
            self.next_id,
            steps,
            side_px,
            lora,
            priority=priority,
            tenant=tenant,
            request_id=request_id,
        )
        self.next_id += 1
        waiting = self.waiting(priority)
        self.alive[new.id] = new
        surplus = self.scheduler.add(new)
        assert (surplus is not None) == (waiting == self.settings.max_waiting)
        if surplus is not None:
            assert surplus.phase is Phase.WAITING
            assert surplus.task.priority is priority
            self.forget(surplus.id)

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        dropped = data.draw(st.sets(st.integers(0, self.next_id)))
        self.scheduler.drop(dropped)
        for number in dropped & self.alive.keys():
            self.forget(number)

    @rule(data=st.data())
    def run_a_turn(self, data: st.DataObject) -> None:
        before = {one.id: (one.phase, one.steps_done) for one in self.alive.values()}
        work = self.scheduler.next()
        assert (work is None) == (not self.alive)
        if work is None:
            return
        self.check(work, before)
        ids = [one.id for one in work.entries]
        failing = data.draw(st.booleans())
        failed = data.draw(st.sets(st.sampled_from(ids))) if failing else set()
        self.scheduler.settle(work, failed)
        for number in ids:
            done = self.alive[number].steps_done
            assert done == before[number][1] + (work.kind is Kind.STEP)
            if number in failed or work.kind is Kind.DECODE:
                self.forget(number)

    def forget(self, number: int) -> None:
        del self.alive[number]
        self.gone.add(number)

    def check(self, work: Work, before: dict[int, tuple[Phase, int]]) -> None:
        ids = [one.id for one in work.entries]
        assert len(set(ids)) == len(ids)
        assert not set(ids) & self.gone
        phase = {Kind.ENCODE: Phase.WAITING, Kind.STEP: Phase.RUNNING, Kind.DECODE: Phase.FINISHING}
        assert {before[number][0] for number in ids} == {phase[work.kind]}
        assert 0 < len(ids) <= work.size
        if work.kind is Kind.STEP:
            assert work.size in self.sizes
            assert len({one.bucket for one in work.entries}) == 1
            assert all(before[one.id][1] < one.steps for one in work.entries)
        else:
            assert work.size in static_sizes(self.settings.vae_batch, self.settings.exact)
            assert len({one.bucket.shape for one in work.entries}) == 1
            assert len({one.task.priority for one in work.entries}) == 1
        if work.kind is Kind.DECODE:
            assert all(one.steps_done == one.steps for one in work.entries)

    @invariant()
    def no_entry_is_lost(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        assert len(self.scheduler) == len(self.alive)
        for priority in Priority:
            assert self.scheduler.waiting(priority) == self.waiting(priority)
            running = [
                one
                for one in self.alive.values()
                if one.phase is Phase.RUNNING and one.task.priority is priority
            ]
            assert len(running) <= self.settings.max_batch
        assert all(0 <= one.steps_done <= one.steps for one in self.alive.values())

    def teardown(self) -> None:
        """What is left is finished within as many turns as there is work, so nobody starves."""
        most_turns = sum(one.steps + 2 for one in self.alive.values())
        left = set(self.alive)
        for _ in range(most_turns):
            before = {one.id: (one.phase, one.steps_done) for one in self.alive.values()}
            if (work := self.scheduler.next()) is None:
                break
            self.check(work, before)
            self.scheduler.settle(work, ())
            if work.kind is Kind.DECODE:
                for one in work.entries:
                    left.discard(one.id)
                    self.forget(one.id)
        assert not left
        if hasattr(self, "scheduler"):
            assert len(self.scheduler) == 0
            lanes = self.scheduler._lanes.values()
            assert not any(lane._waiting or lane._requests or lane._inside for lane in lanes)


TestAnyHistory = Model.TestCase
TestAnyHistory.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
