"""The engine: one thread owns the accelerator and turns: schedule, run, settle.

Callers live on event loops; they submit a tile and read its events. What they say (submit, cancel) waits in
an inbox that the thread empties before each turn, so a cancelled tile takes part in no further step.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from dataclasses import dataclass

from serve_app.contracts import Priority
from serve_app.engine.scheduler import CostTable, Scheduler, Work
from serve_app.engine.task import Entry, Kind, Runner, TileInputs, TileTask
from serve_app.errors import Busy, DeadlineExceeded, ReplicaLost, TesseraError, TileFailed
from serve_app.levels import Levels

logger = logging.getLogger("tessera.engine")


@dataclass(frozen=True, slots=True)
class StepsDone:
    """An event: so many of a tile's steps are done."""

    done: int
    total: int


Event = StepsDone | Levels


@dataclass(slots=True)
class _Caller:
    """Who waits for an entry: delivers events to the caller's event loop."""

    entry: Entry
    inputs: TileInputs
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Event | BaseException]

    def tell(self, event: Event | BaseException) -> None:
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the caller's loop has closed; nobody listens any more
            logger.debug("engine.listener_gone", extra={"entry": self.entry.id})


class Engine:
    """Step-level continuous batching over one runner.

    Args:
        runner: Owns the accelerator.
        scheduler: Decides what runs; used by the engine's thread alone.
        observe: Told after each turn, on the engine's thread, what was run and its seconds; for metrics.

    Attributes:
        tiles_done: Tiles answered with pixels so far.
        tiles_cancelled: Tiles whose callers left before they were answered.
        tiles_failed: Tiles that could not be computed.
        tiles_late: Tiles whose time was over.

    Returns from its constructor when the runner is open and warm, and raises what that raised.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        observe: Callable[[Work, float], None] = lambda work, seconds: None,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._observe = observe
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._callers: dict[int, _Caller] = {}
        self._ids = itertools.count()
        self._door = threading.Lock()  # nobody enters once closing is set
        self._closing = False
        self._opened: Future[None] = Future()
        self.tiles_done = 0
        self.tiles_cancelled = 0
        self.tiles_failed = 0
        self.tiles_late = 0
        self._thread = threading.Thread(target=self._run, name="tessera-engine", daemon=True)
        self._thread.start()
        self._opened.result()

    @property
    def alive(self) -> bool:
        """Whether the thread still turns."""
        return self._thread.is_alive()

    async def probe(self) -> None:
        """Returns once the thread has asked the accelerator for a sign of life; raises where it gave none."""
        asked: Future[None] = Future()

        def ask() -> None:
            if not asked.set_running_or_notify_cancel():
                return  # nobody waits any more
            try:
                self._runner.probe()
            except Exception as error:
                asked.set_exception(error)
            else:
                asked.set_result(None)

        self._enter(ask)
        await asyncio.wrap_future(asked)

    @property
    def load(self) -> int:
        """Tiles accepted and not yet answered."""
        return len(self._scheduler)

    @property
    def rows_skipped(self) -> int:
        """Rows of steps that a residual cache has spared so far."""
        return self._runner.rows_skipped

    def waiting(self, priority: Priority) -> int:
        """Tiles of a class that wait for a place."""
        return self._scheduler.waiting(priority)

    async def denoise(self, task: TileTask, inputs: TileInputs) -> AsyncGenerator[Event]:
        """Computes a tile.

        Args:
            task: What to compute.
            inputs: From which pictures and prompts.

        Yields:
            `StepsDone` after each step; last of all the tile's pixels, (height, width, 3).

        Raises:
            Busy: too many tiles wait, and this request has most of them.
            DeadlineExceeded: the task's time is over; it left between two steps.
            TileFailed: this tile could not be computed.
            ReplicaLost: the engine was closed; another one may be asked.
        """
        steps, bucket = self._runner.plan(task, inputs)
        left_s = task.time_left_s
        deadline = None if left_s is None else time.monotonic() + left_s
        entry = Entry(next(self._ids), task, steps, bucket, deadline)
        caller = _Caller(entry, inputs, asyncio.get_running_loop(), asyncio.Queue())
        self._enter(lambda: self._accept(caller))
        try:
            while True:
                event = await caller.events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if not isinstance(event, StepsDone):
                    return
        finally:
            self._inbox.put(lambda: self._cancel(entry.id))

    def _enter(self, message: Callable[[], None]) -> None:
        with self._door:
            if self._closing:
                raise ReplicaLost("the engine is closed")
            self._inbox.put(message)

    def close(self) -> None:
        """Fails what is left and ends the thread."""
        with self._door:
            self._closing = True
        self._inbox.put(lambda: None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._scheduler.costs = CostTable(self._runner.open())
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            while not self._closing:
                self._listen()
                self._send_away_the_late()
                if work := self._scheduler.next():
                    started = time.perf_counter()
                    ends = self._perform(work)
                    self._scheduler.settle(work, ended=ends)
                    self._report(work, ends)
                    self._observe(work, time.perf_counter() - started)
        except Exception:
            logger.exception("engine.accelerator_lost")
        finally:
            self._fail_all()

    def _listen(self) -> None:
        """Empties the inbox; sleeps in it while there is nothing to do."""
        if not len(self._scheduler):
            self._inbox.get()()
        while True:
            try:
                self._inbox.get_nowait()()
            except queue.Empty:
                return

    def _accept(self, caller: _Caller) -> None:
        self._callers[caller.entry.id] = caller
        if surplus := self._scheduler.add(caller.entry):
            self._callers[surplus.id].tell(Busy("the engine's queue is full", retry_after_s=1))
            self._leave(surplus.id)

    def _cancel(self, entry_id: int) -> None:
        """The caller has gone, or has had the answer."""
        self.tiles_cancelled += entry_id in self._callers
        self._leave(entry_id)

    def _leave(self, entry_id: int) -> None:
        """The entry takes part in nothing any more."""
        self._scheduler.drop([entry_id])
        if self._callers.pop(entry_id, None):
            self._runner.drop(entry_id)

    def _send_away_the_late(self) -> None:
        for entry in self._scheduler.late(time.monotonic()):
            done = f"{entry.steps_done} of {entry.steps} steps done"
            error = DeadlineExceeded(f"the time was over with {done} of tile {entry.task.index}")
            self._callers[entry.id].tell(error)
            self.tiles_late += 1
            self._leave(entry.id)

    def _perform(self, work: Work) -> dict[int, Levels | TesseraError]:
        """Runs a work; if it raises as a whole, runs its entries one by one, so that only the culprit fails.

        An accelerator that gives no sign of life after a fault ends the engine: its tiles are handed back.

        Returns:
            Pixels or an error for each entry that has come to its end.
        """
        try:
            return self._attempt(work)
        except Exception as error:
            self._runner.probe()
            if len(work.entries) == 1:
                entry = work.entries[0]
                logger.exception("engine.tile_failed", extra={"request_id": entry.task.request_id})
                return {entry.id: _as_failure(entry, error)}
        ends: dict[int, Levels | TesseraError] = {}
        for entry in work.entries:
            ends |= self._perform(self._scheduler.alone(work, entry))
        return ends

    def _attempt(self, work: Work) -> dict[int, Levels | TesseraError]:
        if work.kind is Kind.DECODE:
            tiles = self._runner.decode(work.entries, work.size)
            return {entry.id: tile for entry, tile in zip(work.entries, tiles, strict=True)}
        if work.kind is Kind.ENCODE:
            inputs = [self._callers[entry.id].inputs for entry in work.entries]
            self._runner.encode(work.entries, inputs, work.size)
        else:
            self._runner.step(work.entries, work.size)
        return {}

    def _report(self, work: Work, ends: dict[int, Levels | TesseraError]) -> None:
        for entry in work.entries:
            caller = self._callers[entry.id]
            if (end := ends.get(entry.id)) is not None:
                caller.tell(end)
                failed = isinstance(end, TesseraError)
                self.tiles_failed += failed
                self.tiles_done += not failed
                self._leave(entry.id)
            elif work.kind is Kind.STEP:
                caller.tell(StepsDone(entry.steps_done, entry.steps))

    def _fail_all(self) -> None:
        with self._door:
            self._closing = True
        while not self._inbox.empty():
            self._inbox.get()()
        for caller in list(self._callers.values()):
            caller.tell(ReplicaLost("the engine was closed"))
            self._leave(caller.entry.id)


def _as_failure(entry: Entry, error: Exception) -> TesseraError:
    if isinstance(error, TileFailed | DeadlineExceeded):
        return error
    return TileFailed(f"tile {entry.task.index} failed: {type(error).__name__}: {error}")
