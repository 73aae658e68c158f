"""What runs next: whose turn, of what kind, with whom and at which size; test_fairness has shares over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from serve_app.contracts import Priority
from serve_app.engine.scheduler import CostTable, Scheduler, Shares, static_sizes
from serve_app.engine.task import Entry, Kind, Phase
from serve_app.settings import EngineSettings
from tests.unit.engine.entries import entry

Turn = tuple[Kind, list[int]]
BATCH = Priority.BATCH
LINEAR = CostTable({(Kind.STEP, 1): 1, (Kind.ENCODE, 1): 0.25, (Kind.DECODE, 1): 0.25})


def turn(scheduler: Scheduler, failed: tuple[int, ...] = ()) -> Turn | None:
    """Takes the next work and settles it."""
    work = scheduler.next()
    if work is None:
        return None
    scheduler.settle(work, failed)
    return work.kind, [one.id for one in work.entries]


def turns(scheduler: Scheduler) -> list[Turn]:
    return list(iter(lambda: turn(scheduler), None))


def turns_until(scheduler: Scheduler, decoded: int) -> list[Turn]:
    found = [turn(scheduler) or (Kind.STEP, [])]
    while found[-1] != (Kind.DECODE, [decoded]):
        found.append(turn(scheduler) or (Kind.STEP, []))
    return found


def steps_of(scheduler: Scheduler) -> Iterator[list[int]]:
    return (ids for kind, ids in turns(scheduler) if kind is Kind.STEP)


def filled(*entries: Entry, max_batch: int = 2, vae_batch: int = 2, **given: Any) -> Scheduler:
    scheduler = Scheduler(EngineSettings(max_batch=max_batch, vae_batch=vae_batch, **given))
    for one in entries:
        scheduler.add(one)
    return scheduler


# One lane


def test_nothing_is_to_be_done_at_first():
    scheduler = filled()
    assert scheduler.next() is None
    assert len(scheduler) == 0


def test_one_entry_is_encoded_stepped_and_decoded():
    scheduler = filled(entry(0, steps=2))
    assert turns(scheduler) == [
        (Kind.ENCODE, [0]),
        (Kind.STEP, [0]),
        (Kind.STEP, [0]),
        (Kind.DECODE, [0]),
    ]
    assert len(scheduler) == 0


def test_an_entry_without_steps_goes_straight_to_its_decoding():
    assert turns(filled(entry(0, steps=0))) == [(Kind.ENCODE, [0]), (Kind.DECODE, [0])]


def test_entries_join_and_leave_between_steps():
    scheduler = filled(entry(0, steps=2), entry(1, steps=1), entry(2, steps=1))
    assert turns(scheduler) == [
        (Kind.ENCODE, [0, 1]),
        (Kind.STEP, [0, 1]),
        (Kind.DECODE, [1]),  # decoding first: it answers a caller and frees a place
        (Kind.ENCODE, [2]),  # joining next: entry 0 is in the middle of its steps
        (Kind.STEP, [0, 2]),
        (Kind.DECODE, [0, 2]),
    ]


def test_who_comes_first_runs_first():
    scheduler = filled(*(entry(number, steps=1) for number in range(5)))
    assert list(steps_of(scheduler)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("differ", [{"side_px": 16}, {"lora": "turbo"}])
def test_two_buckets_never_share_a_step(differ: dict[str, Any]):
    entries = [entry(number, 3, **(differ if number % 2 else {})) for number in range(4)]
    steps = list(steps_of(filled(*entries, max_batch=4)))
    assert sorted(steps) == [[0, 2]] * 3 + [[1, 3]] * 3


def test_where_company_gains_nothing_tiles_end_one_after_the_other():
    scheduler = filled(entry(0), entry(1), entry(2), max_batch=4, vae_batch=1)
    scheduler.costs = LINEAR
    decoded_after = [
        sum(kind is Kind.STEP for kind, _ in done)
        for done in (turns_until(scheduler, number) for number in range(3))
    ]
    assert decoded_after == [2, 2, 2]  # each two steps after the one before, not all after six


def test_one_more_than_may_wait_is_sent_back():
    scheduler = filled(entry(0), entry(1), max_batch=1, max_waiting=2)
    newest = entry(2)
    assert scheduler.add(newest) is newest
    assert len(scheduler) == 2
    assert scheduler.add(entry(3, priority=BATCH)) is None  # the other class has its own queue
    assert (scheduler.waiting(Priority.INTERACTIVE), scheduler.waiting(BATCH)) == (2, 1)


def test_who_has_few_waiting_is_not_refused_for_who_has_many():
    large = [entry(n, request_id="large") for n in range(4)]
    scheduler = filled(*large, max_batch=1, max_waiting=4)
    assert scheduler.add(entry(4, request_id="small")) is large[3]
    large_tenant = [entry(5 + n, request_id=f"r{n}", tenant="many") for n in range(3)]
    sent_back = [scheduler.add(one) for one in large_tenant]
    assert sent_back == [large[2], large[1], large_tenant[2]]
    assert scheduler.waiting(Priority.INTERACTIVE) == 4


def test_running_entries_do_not_count_as_waiting():
    scheduler = filled(entry(0), entry(1), max_waiting=2)
    turn(scheduler)
    scheduler.add(entry(2))
    assert scheduler.waiting(Priority.INTERACTIVE) == 1


@pytest.mark.parametrize("before", range(5))
def test_an_entry_can_be_dropped_at_any_phase(before: int):
    scheduler = filled(entry(0, steps=2), entry(1, steps=9))
    for _ in range(before):
        turn(scheduler)
    scheduler.drop([0, 77])  # unknown ones are ignored
    left = turns(scheduler)
    assert all(ids == [1] for _, ids in left)
    assert left[-1] == (Kind.DECODE, [1])


def test_a_failed_entry_is_forgotten_and_its_place_is_free():
    scheduler = filled(entry(0, steps=3), entry(1, steps=3), entry(2, steps=1))
    turn(scheduler)
    assert turn(scheduler, failed=(0,)) == (Kind.STEP, [0, 1])
    assert turn(scheduler) == (Kind.ENCODE, [2])
    assert turn(scheduler) == (Kind.STEP, [1, 2])


def test_entries_whose_time_is_over_are_told_wherever_they_stand():
    late, later, never = entry(0, steps=9), entry(1, steps=9), entry(2, steps=9)
    late.deadline, later.deadline = 5, 8
    scheduler = filled(late, later, never, max_batch=1)
    assert scheduler.late(4.9) == []
    turn(scheduler)
    assert late.phase is Phase.RUNNING
    assert scheduler.late(5) == [late]
    assert scheduler.late(9) == [late, later]


def test_the_autoencoder_takes_few_at_a_time():
    scheduler = filled(entry(0, steps=1), entry(1, steps=1), vae_batch=1)
    assert turns(scheduler) == [
        (Kind.ENCODE, [0]),
        (Kind.ENCODE, [1]),
        (Kind.STEP, [0, 1]),
        (Kind.DECODE, [0]),
        (Kind.DECODE, [1]),
    ]


def test_the_autoencoder_takes_no_longer_than_the_step_that_follows():
    scheduler = filled(*(entry(n, steps=3) for n in range(8)), vae_batch=1, max_batch=8)
    flat = {(Kind.STEP, 1): 1, (Kind.STEP, 2): 1.1, (Kind.STEP, 4): 1.2, (Kind.STEP, 8): 1.3}
    scheduler.costs = CostTable(flat | {(Kind.ENCODE, 1): 0.5, (Kind.DECODE, 1): 0.5})
    kinds = "".join(kind.name[0] for kind, _ in turns(scheduler))
    assert kinds.startswith("EEESEEESEES")  # 0.5 + 0.5 + 0.5 is more than 1.2, then the 8th joins
    assert "DDDD" not in kinds.rstrip("D")  # those who finish do not hold up the others either


# Two lanes


def test_an_interactive_tile_stops_batch_tiles_between_two_steps():
    scheduler = filled(*(entry(n, steps=4, priority=BATCH) for n in range(2)))
    scheduler.costs = LINEAR
    assert turn(scheduler) == (Kind.ENCODE, [0, 1])
    assert turn(scheduler) == (Kind.STEP, [0])
    scheduler.add(entry(2, steps=2))
    assert [turn(scheduler) for _ in range(3)] == [
        (Kind.ENCODE, [2]),
        (Kind.STEP, [2]),
        (Kind.STEP, [2]),
    ]
    assert len(scheduler) == 3


def test_batch_tiles_ride_along_where_the_step_hardly_takes_longer():
    scheduler = filled(*(entry(n, steps=9, priority=BATCH) for n in range(4)), max_batch=4)
    scheduler.costs = CostTable({(Kind.STEP, 1): 1, (Kind.STEP, 2): 1.05, (Kind.STEP, 4): 1.5})
    turn(scheduler), turn(scheduler), turn(scheduler)
    scheduler.add(entry(9, steps=1))
    assert turn(scheduler) == (Kind.ENCODE, [9])
    kind, ids = turn(scheduler) or (None, [])
    assert kind is Kind.STEP
    assert ids[0] == 9
    assert len(ids) == 2


# Batch sizes


def test_static_sizes_are_powers_of_two_up_to_the_most():
    assert static_sizes(1) == (1,)
    assert static_sizes(8) == (1, 2, 4, 8)
    assert static_sizes(6) == (1, 2, 4, 6)
    assert static_sizes(6, exact=True) == (6,)


def sizes_run(costs: dict[int, float], rows: int, exact: bool = False) -> list[tuple[int, int]]:
    """Rows and size of each step until all rows have had one."""
    entries = [entry(number, steps=1) for number in range(rows)]
    scheduler = filled(*entries, max_batch=8, vae_batch=8, exact=exact)
    scheduler.costs = CostTable({(Kind.STEP, size): s for size, s in costs.items()})
    found = []
    while work := scheduler.next():
        if work.kind is Kind.STEP:
            found.append((len(work.entries), work.size))
        scheduler.settle(work, ())
    return found


def test_the_size_is_the_cheapest_for_each_row():
    linear = {1: 1, 2: 2, 4: 4, 8: 8}
    assert sizes_run(linear, 3) == [(1, 1)] * 3
    hardly_better = {1: 1, 2: 1.95, 4: 3.9, 8: 7.8}
    assert sizes_run(hardly_better, 2) == [(1, 1)] * 2
    halves = {1: 1, 2: 1, 4: 2, 8: 4}
    assert sizes_run(halves, 3) == [(2, 2), (1, 1)]
    flat = {1: 1, 2: 1.1, 4: 1.2, 8: 1.3}
    assert sizes_run(flat, 3) == [(3, 4)]  # one row is padding
    assert sizes_run(flat, 5) == [(5, 8)]
    worse_in_company = {1: 1, 2: 3, 4: 9, 8: 30}
    assert sizes_run(worse_in_company, 3) == [(1, 1)] * 3


def test_exact_runs_every_step_at_one_size():
    assert sizes_run({8: 8}, 3, exact=True) == [(3, 8)]


def test_an_entry_is_tried_alone_at_the_smallest_size():
    """A batch that ran out of memory need not run out of it again."""
    for exact, size in ((False, 1), (True, 2)):
        scheduler = filled(entry(0), entry(1), exact=exact)
        work = scheduler.next()
        assert work is not None
        assert work.size == 2
        alone = scheduler.alone(work, work.entries[1])
        assert (alone.kind, alone.entries, alone.size) == (work.kind, work.entries[1:], size)


def test_a_size_that_was_not_measured_is_taken_as_proportional():
    table = CostTable({(Kind.STEP, 1): 1, (Kind.STEP, 4): 2})
    assert [table.seconds(Kind.STEP, n) for n in (1, 2, 4, 8)] == [1, 2, 2, 4]


# Shares


def served(shares: Shares[str], turns: int, cost: float = 1) -> str:
    order = ""
    for _ in range(turns):
        order += shares.due()
        shares.charge(order[-1], cost)
    return order


def test_a_newcomer_starts_level_and_earns_no_credit():
    shares = Shares[str]()
    shares.enter("o")
    served(shares, 10)
    shares.enter("n")
    assert served(shares, 6).count("n") == 3


def test_leaving_and_coming_back_earns_no_turn():
    """Who always has just one thing waiting gets no more than who has many."""
    shares = Shares[str]()
    shares.enter("m")
    order = ""
    for _ in range(20):
        shares.enter("o")
        order += served(shares, 1)
        shares.leave("o")
    assert 9 <= order.count("o") <= 11


def test_endless_newcomers_starve_nobody():
    shares = Shares[str]()
    shares.enter("l")
    order = ""
    for number in range(60):
        shares.enter(chr(200 + number))
        shares.enter(chr(300 + number))
        order += served(shares, 1)
        if order[-1] != "l":
            shares.leave(order[-1])
    assert order.count("l") >= 3
    assert len(shares._had) <= 1 + 120


def test_accounts_of_the_gone_are_closed():
    shares = Shares[str]()
    for number in range(1000):
        shares.enter(chr(200 + number))
        served(shares, 1)
        shares.leave(chr(200 + number))
    assert len(shares._had) <= 2
