"""Tiles join and leave between steps; each gets its own answer, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing

import numpy as np
import pytest

from serve_app.engine.engine import Engine, Event, StepsDone
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.task import Entry, Kind, TileTask
from serve_app.errors import Busy, DeadlineExceeded, ReplicaLost, TileFailed
from serve_app.levels import Levels
from serve_app.settings import EngineSettings
from serve_app.testing_engine import IdentityRunner, PacedRunner, identity_engine
from tests.unit.engine.entries import crop, inputs, task
from tests.unit.engine.turnstile import Turnstile

Start = Callable[..., Engine]
Result = Levels | BaseException


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines and closes them after the test."""
    engines: list[Engine] = []

    def build(runner: IdentityRunner, max_batch: int = 4, max_waiting: int = 64) -> Engine:
        engines.append(engine_of(runner, max_batch, max_waiting))
        return engines[-1]

    yield build
    for engine in engines:
        engine.close()


def engine_of(runner: IdentityRunner, max_batch: int = 4, max_waiting: int = 64) -> Engine:
    sizes = EngineSettings(max_batch=max_batch, max_waiting=max_waiting, vae_batch=max_batch)
    return Engine(runner, Scheduler(sizes))


async def all_events(engine: Engine, tile: TileTask) -> list[Event]:
    return [event async for event in engine.denoise(tile, inputs(tile.index))]


async def pixels(engine: Engine, tile: TileTask) -> Levels:
    last = (await all_events(engine, tile))[-1]
    assert isinstance(last, np.ndarray)
    return last


async def submit(engine: Engine, *tiles: TileTask) -> list[asyncio.Task[Levels]]:
    """Returns once the engine has been told of the tiles."""
    running = [asyncio.create_task(pixels(engine, tile)) for tile in tiles]
    await asyncio.sleep(0)
    return running


async def outcomes(running: Sequence[asyncio.Task[Levels]]) -> list[Result]:
    return await asyncio.gather(*running, return_exceptions=True)


def assert_failed_alone(found: Sequence[Result], culprit: int) -> None:
    for index, result in enumerate(found):
        if index == culprit:
            assert isinstance(result, TileFailed)
        else:
            assert np.array_equal(result, crop(index))


def assert_empty(engine: Engine, runner: IdentityRunner) -> None:
    assert len(engine._scheduler) == 0
    assert engine._callers == {}
    assert runner.rows == {}


async def settled(engine: Engine) -> None:
    """Returns when the engine's thread has heard all that was said before and sleeps again."""
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    engine._inbox.put(lambda: loop.call_soon_threadsafe(heard.set))
    await heard.wait()


# Events


async def test_events_come_in_order_and_end_with_the_pixels(start: Start):
    *steps, last = await all_events(start(IdentityRunner()), task(5, steps=3))
    assert steps == [StepsDone(1, 3), StepsDone(2, 3), StepsDone(3, 3)]
    assert np.array_equal(last, crop(5))


async def test_an_idle_engine_wakes_for_every_tile(start: Start):
    engine = start(IdentityRunner())
    for index in range(3):
        assert np.array_equal(await pixels(engine, task(index)), crop(index))
    await settled(engine)
    assert engine.alive
    assert engine.tiles_done == 3


async def test_the_shipped_identity_engine_gives_crops_back():
    engine = identity_engine()
    assert np.array_equal(await pixels(engine, task(9)), crop(9))
    engine.close()


# Batches


async def test_tiles_join_and_leave_between_steps(start: Start):
    bar = Turnstile()
    engine = start(PacedRunner(on_turn=bar), max_batch=3)
    running = await submit(engine, task(0, steps=3))
    assert await bar.at_bar() == (Kind.ENCODE, (0,))
    assert await bar.let_through() == (Kind.STEP, (0,))
    running += await submit(engine, task(1, steps=1), task(2, steps=2))
    assert await bar.let_through() == (Kind.ENCODE, (1, 2))
    assert await bar.let_through() == (Kind.STEP, (0, 1, 2))
    assert await bar.let_through() == (Kind.DECODE, (1,))
    assert await bar.let_through() == (Kind.STEP, (0, 2))
    assert await bar.let_through() == (Kind.DECODE, (0, 2))
    bar.open()
    for index, result in enumerate(await outcomes(running)):
        assert np.array_equal(result, crop(index))


async def test_one_more_tile_than_may_wait_is_refused_and_the_others_are_served(start: Start):
    bar = Turnstile()
    engine = start(PacedRunner(on_turn=bar), max_batch=1, max_waiting=2)
    running = await submit(engine, task(0))
    await bar.at_bar()
    running += await submit(engine, task(1), task(2), task(3))
    bar.open()
    *served, refused = await outcomes(running)
    assert isinstance(refused, Busy)
    for index, result in enumerate(served):
        assert np.array_equal(result, crop(index))


# Cancelling


async def test_a_cancelled_tile_takes_part_in_no_further_step(start: Start):
    bar = Turnstile()
    runner = PacedRunner(on_turn=bar)
    engine = start(runner)
    running = await submit(engine, task(0, steps=4))
    await bar.at_bar()
    running += await submit(engine, task(1, steps=4))
    assert await bar.let_through() == (Kind.ENCODE, (1,))
    assert await bar.let_through() == (Kind.STEP, (0, 1))
    running[0].cancel()
    assert isinstance((await outcomes(running[:1]))[0], asyncio.CancelledError)
    assert await bar.let_through() == (Kind.STEP, (1,))
    bar.open()
    assert np.array_equal(await running[1], crop(1))
    await settled(engine)
    assert_empty(engine, runner)


async def test_a_consumer_that_stops_reading_frees_its_place(start: Start):
    bar = Turnstile()
    runner = PacedRunner(on_turn=bar)
    engine = start(runner)

    async def read_one_event() -> Event:
        async with aclosing(engine.denoise(task(0, steps=50), inputs(0))) as events:
            return await anext(events)

    reading = asyncio.create_task(read_one_event())
    await bar.at_bar()
    assert await bar.let_through() == (Kind.STEP, (0,))
    bar.release()
    assert await reading == StepsDone(1, 50)
    bar.open()
    await settled(engine)
    assert_empty(engine, runner)
    steps = sum(kind is Kind.STEP for kind, _ in runner.turns)
    assert steps in (1, 2)  # a second one may have been begun already


async def test_a_tile_cancelled_while_it_waits_is_never_begun(start: Start):
    bar = Turnstile()
    runner = PacedRunner(on_turn=bar)
    engine = start(runner, max_batch=1)
    running = await submit(engine, task(0), task(1), task(2))
    await bar.at_bar()
    running[1].cancel()
    await outcomes(running[1:2])
    bar.open()
    await outcomes(running)
    assert all(1 not in tiles for _, tiles in runner.turns)
    assert np.array_equal(await running[2], crop(2))


# Failing


def raises_for(tile: int, kind: Kind) -> Callable[[Kind, Sequence[Entry]], None]:
    def hook(turn: Kind, entries: Sequence[Entry]) -> None:
        if turn is kind and any(entry.task.index == tile for entry in entries):
            raise RuntimeError("bad tile")

    return hook


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_failing_tile_fails_alone(start: Start, kind: Kind):
    runner = PacedRunner(on_turn=raises_for(2, kind))
    engine = start(runner)
    found = await outcomes(await submit(engine, *(task(index) for index in range(4))))
    assert_failed_alone(found, culprit=2)
    assert "tile 2 failed: RuntimeError: bad tile" in str(found[2])
    await settled(engine)
    assert_empty(engine, runner)


async def test_a_tile_that_fails_in_the_middle_of_its_steps_fails_alone(start: Start):
    engine = start(PacedRunner(fail_at=[(1, 2)]))
    found = await outcomes(await submit(engine, *(task(index, steps=4) for index in range(4))))
    assert_failed_alone(found, culprit=1)


async def test_a_batch_that_fails_as_a_whole_is_tried_one_by_one(start: Start):
    bar = Turnstile()

    def refuse_batches(kind: Kind, entries: Sequence[Entry]) -> None:
        bar(kind, entries)
        if len(entries) > 1:
            raise MemoryError("too many at once")

    runner = PacedRunner(on_turn=refuse_batches)
    engine = start(runner, max_batch=3)
    first = await submit(engine, task(0, steps=1))
    await bar.at_bar()
    running = first + await submit(engine, task(1, steps=1), task(2, steps=1))
    bar.open()
    for index, result in enumerate(await outcomes(running)):
        assert np.array_equal(result, crop(index))
    assert runner.turns == [
        (Kind.ENCODE, (0,)),
        *[(Kind.ENCODE, tiles) for tiles in [(1, 2), (1,), (2,)]],
        *[(Kind.STEP, tiles) for tiles in [(0, 1, 2), (0,), (1,), (2,)]],
        *[(Kind.DECODE, tiles) for tiles in [(0, 1, 2), (0,), (1,), (2,)]],
    ]


async def test_an_error_of_the_tree_reaches_its_caller_as_it_is(start: Start):
    told = TileFailed("the model cannot do this")

    def refuse(kind: Kind, entries: Sequence[Entry]) -> None:
        raise told

    with pytest.raises(TileFailed) as caught:
        await pixels(start(PacedRunner(on_turn=refuse)), task())
    assert caught.value is told


async def test_a_tile_whose_time_is_over_leaves_between_two_steps(start: Start):
    bar = Turnstile()
    runner = PacedRunner(on_turn=bar)
    engine = start(runner)
    (late,) = await submit(engine, task(0, steps=9, time_left_s=0.2))
    await bar.at_bar()
    (other,) = await submit(engine, task(1, steps=9))
    assert await bar.let_through() == (Kind.ENCODE, (1,))
    assert await bar.let_through() == (Kind.STEP, (0, 1))
    await asyncio.sleep(0.2)
    assert await bar.let_through() == (Kind.STEP, (1,))
    with pytest.raises(DeadlineExceeded, match="1 of 9 steps"):
        await late
    bar.open()
    assert np.array_equal(await other, crop(1))
    await settled(engine)
    assert_empty(engine, runner)


async def test_a_tile_that_turns_nan_fails_alone(start: Start):
    runner = PacedRunner(nan_at=[(3, 1)])
    engine = start(runner)
    found = await outcomes(await submit(engine, *(task(index) for index in range(4))))
    assert_failed_alone(found, culprit=3)
    assert "NaN" in str(found[3])
    await settled(engine)
    assert_empty(engine, runner)


# Watching


async def test_a_probe_is_answered_between_turns_and_raises_what_the_accelerator_raises(
    start: Start,
):
    bar = Turnstile()
    runner = PacedRunner(on_turn=bar)
    engine = start(runner)
    running = await submit(engine, task(0))
    await bar.at_bar()
    probing = asyncio.create_task(engine.probe())
    await asyncio.sleep(0.05)
    assert not probing.done()  # the thread is held at the bar
    bar.open()
    await probing
    await outcomes(running)

    def broken() -> None:
        raise RuntimeError("an illegal memory access")

    runner.probe = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="illegal"):
        await engine.probe()
    engine.close()
    with pytest.raises(ReplicaLost):
        await engine.probe()


async def test_a_probe_that_nobody_waits_for_any_more_harms_nothing(start: Start):
    bar = Turnstile()
    engine = start(PacedRunner(on_turn=bar))
    running = await submit(engine, task(0))
    await bar.at_bar()
    probing = asyncio.create_task(engine.probe())
    await asyncio.sleep(0)
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    bar.open()
    (found,) = await outcomes(running)
    assert isinstance(found, np.ndarray)
    await engine.probe()


async def test_an_accelerator_that_died_hands_all_tiles_back(
    start: Start, caplog: pytest.LogCaptureFixture
):
    """Its tiles are not at fault: another engine computes them."""

    def fault(kind: Kind, entries: Sequence[Entry]) -> None:
        if kind is Kind.STEP:
            runner.probe = dead  # type: ignore[method-assign]
            raise RuntimeError("an illegal memory access")

    def dead() -> None:
        raise RuntimeError("still an illegal memory access")

    runner = PacedRunner(on_turn=fault)
    engine = start(runner, max_batch=2)
    found = await outcomes(await submit(engine, *(task(index) for index in range(4))))
    assert [type(result) for result in found] == [ReplicaLost] * 4
    assert "engine.accelerator_lost" in caplog.text
    engine.close()
    assert not engine.alive
    assert_empty(engine, runner)


async def test_an_observer_hears_of_every_turn():
    heard: list[tuple[Kind, int, int]] = []
    engine = Engine(
        IdentityRunner(),
        Scheduler(EngineSettings(max_batch=4)),
        lambda work, seconds: heard.append((work.kind, len(work.entries), work.size)),
    )
    await pixels(engine, task(0, steps=2))
    engine.close()
    assert heard == [(Kind.ENCODE, 1, 1), (Kind.STEP, 1, 1), (Kind.STEP, 1, 1), (Kind.DECODE, 1, 1)]
    assert (engine.tiles_done, engine.tiles_cancelled) == (1, 0)


# Opening and closing


async def test_closing_answers_everybody(start: Start):
    bar = Turnstile()
    runner = PacedRunner(on_turn=bar)
    engine = start(runner, max_batch=1)
    running = await submit(engine, task(0, steps=9), task(1), task(2))
    await bar.at_bar()
    await bar.let_through()
    closing = asyncio.create_task(asyncio.to_thread(engine.close))
    while not engine._closing:
        await asyncio.sleep(0)
    bar.open()
    await closing
    assert all(isinstance(result, ReplicaLost) for result in await outcomes(running))
    assert not engine.alive
    assert_empty(engine, runner)


async def test_a_closed_engine_refuses(start: Start):
    engine = start(IdentityRunner())
    engine.close()
    with pytest.raises(ReplicaLost, match="closed"):
        await pixels(engine, task())


def test_closing_twice_is_closing_once(start: Start):
    engine = start(IdentityRunner())
    engine.close()
    engine.close()
    assert not engine.alive


def test_a_runner_that_cannot_open_fails_the_engines_start():
    class Broken(IdentityRunner):
        def open(self) -> dict[tuple[Kind, int], float]:
            raise OSError("no accelerator")

    with pytest.raises(OSError, match="no accelerator"):
        engine_of(Broken())


def test_the_runner_is_opened_before_the_engine_is_handed_out(start: Start):
    class Slow(IdentityRunner):
        thread = ""

        def open(self) -> dict[tuple[Kind, int], float]:
            self.thread = threading.current_thread().name
            return {}

    runner = Slow()
    start(runner)
    assert runner.thread == "tessera-engine"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_caller_whose_loop_has_closed_troubles_nobody(start: Start):
    bar = Turnstile()
    engine = start(PacedRunner(on_turn=bar))
    loop = asyncio.new_event_loop()
    events = engine.denoise(task(0), inputs(0))
    reading = loop.create_task(anext(events))
    loop.run_until_complete(bar.at_bar())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    bar.open()
    assert np.array_equal(asyncio.run(pixels(engine, task(1))), crop(1))
    assert not reading.done()
    del events, reading
    gc.collect()  # Python grumbles about the closed loop now, not in another test
