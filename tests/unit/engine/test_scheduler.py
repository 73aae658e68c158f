"""What runs next: decode before encode before step, in order of arrival, never past the batch."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serve_app.engine.scheduler import Kind, Scheduler, Work
from serve_app.engine.task import Entry, Phase
from serve_app.errors import Busy
from tests.unit.engine.entries import entry


def turn(scheduler: Scheduler, failed: tuple[int, ...] = ()) -> tuple[Kind, list[int]] | None:
    """Takes the next work and settles it."""
    work = scheduler.next()
    if work is None:
        return None
    scheduler.settle(work, failed)
    return work.kind, [one.id for one in work.entries]


def filled(
    *entries: Entry, max_batch: int = 2, max_waiting: int = 8, vae_batch: int = 2
) -> Scheduler:
    scheduler = Scheduler(max_batch, max_waiting, vae_batch)
    for one in entries:
        scheduler.add(one)
    return scheduler


def test_nothing_is_to_be_done_at_first():
    scheduler = filled()
    assert scheduler.next() is None
    assert len(scheduler) == 0


def test_one_entry_is_encoded_stepped_and_decoded():
    scheduler = filled(entry(0, steps=2))
    turns = [turn(scheduler) for _ in range(5)]
    assert turns == [
        (Kind.ENCODE, [0]),
        (Kind.STEP, [0]),
        (Kind.STEP, [0]),
        (Kind.DECODE, [0]),
        None,
    ]
    assert len(scheduler) == 0


def test_an_entry_without_steps_goes_straight_to_its_decoding():
    scheduler = filled(entry(0, steps=0))
    assert [turn(scheduler) for _ in range(3)] == [(Kind.ENCODE, [0]), (Kind.DECODE, [0]), None]


def test_entries_join_and_leave_between_steps():
    scheduler = filled(entry(0, steps=2), entry(1, steps=1), entry(2, steps=1))
    assert [turn(scheduler) for _ in range(8)] == [
        (Kind.ENCODE, [0, 1]),
        (Kind.STEP, [0, 1]),
        (Kind.DECODE, [1]),  # decoding first: it answers a caller and frees a place
        (Kind.ENCODE, [2]),  # joining next: entry 0 is in the middle of its steps
        (Kind.STEP, [0, 2]),
        (Kind.DECODE, [0, 2]),
        None,
        None,
    ]


def test_who_comes_first_runs_first():
    scheduler = filled(*(entry(number, steps=1) for number in range(5)))
    order = [ids for kind, ids in iter(lambda: turn(scheduler), None) if kind is Kind.STEP]
    assert order == [[0, 1], [2, 3], [4]]


def test_tiles_of_two_sizes_never_share_a_batch():
    sides = [8, 16, 8, 16, 16]
    scheduler = filled(*(entry(number, 1, side) for number, side in enumerate(sides)), max_batch=3)
    while work := scheduler.next():
        assert len({one.bucket for one in work.entries}) == 1
        scheduler.settle(work, ())
    assert len(scheduler) == 0


def test_one_more_than_may_wait_is_refused():
    scheduler = filled(entry(0), entry(1), max_batch=1, max_waiting=2)
    with pytest.raises(Busy) as caught:
        scheduler.add(entry(2))
    assert caught.value.retry_after_s
    assert len(scheduler) == 2


def test_running_entries_do_not_count_as_waiting():
    scheduler = filled(entry(0), entry(1), max_batch=2, max_waiting=2)
    turn(scheduler)
    scheduler.add(entry(2))
    assert (scheduler.count(Phase.RUNNING), scheduler.count(Phase.WAITING)) == (2, 1)


@pytest.mark.parametrize("turns", range(5))
def test_an_entry_can_be_dropped_at_any_phase(turns: int):
    scheduler = filled(entry(0, steps=2), entry(1, steps=9))
    for _ in range(turns):
        turn(scheduler)
    scheduler.drop([0, 77])  # unknown ones are ignored
    left = list(iter(lambda: turn(scheduler), None))
    assert all(ids == [1] for _, ids in left)
    assert left[-1] == (Kind.DECODE, [1])


def test_a_failed_entry_is_forgotten_and_its_place_is_free():
    scheduler = filled(entry(0, steps=3), entry(1, steps=3), entry(2, steps=1))
    turn(scheduler)
    assert turn(scheduler, failed=(0,)) == (Kind.STEP, [0, 1])
    assert turn(scheduler) == (Kind.ENCODE, [2])
    assert turn(scheduler) == (Kind.STEP, [1, 2])


def test_the_autoencoder_takes_few_at_a_time_and_steps_take_all():
    scheduler = filled(entry(0, steps=1), entry(1, steps=1), vae_batch=1)
    assert list(iter(lambda: turn(scheduler), None)) == [
        (Kind.ENCODE, [0]),
        (Kind.ENCODE, [1]),
        (Kind.STEP, [0, 1]),
        (Kind.DECODE, [0]),
        (Kind.DECODE, [1]),
    ]


class Model(RuleBasedStateMachine):
    """Adds, cancels and fails entries at random and keeps account of each."""

    max_batch = 3
    max_waiting = 4

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(self.max_batch, self.max_waiting, vae_batch=2)
        self.alive: dict[int, Entry] = {}
        self.decoded: set[int] = set()
        self.gone: set[int] = set()
        self.next_id = 0

    @rule(steps=st.integers(0, 4), side_px=st.sampled_from([8, 16]))
    def add(self, steps: int, side_px: int) -> None:
        new = entry(self.next_id, steps, side_px)
        waiting = sum(one.phase is Phase.WAITING for one in self.alive.values())
        self.next_id += 1
        try:
            self.scheduler.add(new)
        except Busy:
            assert waiting == self.max_waiting
        else:
            assert waiting < self.max_waiting
            self.alive[new.id] = new

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        dropped = data.draw(st.sets(st.integers(0, self.next_id)))
        self.scheduler.drop(dropped)
        for number in dropped & self.alive.keys():
            self.forget(number)

    @rule(data=st.data())
    def run_a_turn(self, data: st.DataObject) -> None:
        work = self.scheduler.next()
        assert (work is None) == (not self.alive)
        if work is None:
            return
        ids = [one.id for one in work.entries]
        failed = data.draw(
            st.sets(st.sampled_from(ids)) if data.draw(st.booleans()) else st.just(set())
        )
        self.check(work)
        before = {one.id: one.steps_done for one in work.entries}
        self.scheduler.settle(work, failed)
        for number in ids:
            done = self.alive[number].steps_done
            assert number in failed or done == before[number] + (work.kind is Kind.STEP)
            if number in failed:
                self.forget(number)
            elif work.kind is Kind.DECODE:
                self.decoded.add(number)
                self.forget(number)

    def forget(self, number: int) -> None:
        del self.alive[number]
        self.gone.add(number)

    def check(self, work: Work) -> None:
        ids = [one.id for one in work.entries]
        assert 0 < len(ids) <= self.max_batch
        assert len(set(ids)) == len(ids)
        assert not set(ids) & self.gone
        assert len({one.bucket for one in work.entries}) == 1
        phase = {Kind.ENCODE: Phase.WAITING, Kind.STEP: Phase.RUNNING, Kind.DECODE: Phase.FINISHING}
        assert {one.phase for one in work.entries} == {phase[work.kind]}
        if work.kind is Kind.DECODE:
            assert all(one.steps_done == one.steps for one in work.entries)
        if work.kind is Kind.STEP:
            running = [one.id for one in self.alive.values() if one.phase is Phase.RUNNING]
            assert sorted(ids) == sorted(running)  # nobody who runs sits out a step

    @invariant()
    def no_entry_is_lost(self) -> None:
        assert len(self.scheduler) == len(self.alive)
        for phase in Phase:
            count = sum(one.phase is phase for one in self.alive.values())
            assert self.scheduler.count(phase) == count
        assert self.scheduler.count(Phase.RUNNING) <= self.max_batch
        assert all(0 <= one.steps_done <= one.steps for one in self.alive.values())

    def teardown(self) -> None:
        most_turns = sum(one.steps + 2 for one in self.alive.values())
        left = set(self.alive)
        for _ in range(most_turns):
            if (work := self.scheduler.next()) is None:
                break
            self.check(work)
            self.scheduler.settle(work, ())
            if work.kind is Kind.DECODE:
                left -= {one.id for one in work.entries}
        assert not left
        assert len(self.scheduler) == 0


TestAnyHistory = Model.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
