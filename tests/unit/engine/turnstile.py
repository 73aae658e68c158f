"""Holds an engine between its turns, so that tests decide what happens when."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence

from serve_app.engine.task import Entry, Kind

Turn = tuple[Kind, tuple[int, ...]]
_PATIENCE_S = 30


class Turnstile:
    """A `PacedRunner.on_turn` that lets one turn through at a time."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[Turn] = queue.SimpleQueue()
        self._bar = threading.Semaphore(0)
        self._open = False

    def __call__(self, kind: Kind, entries: Sequence[Entry]) -> None:
        self._arrived.put((kind, tuple(entry.task.index for entry in entries)))
        if not self._open and not self._bar.acquire(timeout=_PATIENCE_S):
            raise TimeoutError("nobody let this turn through")

    async def at_bar(self) -> Turn:
        """Waits for the next turn to arrive at the bar; it stays there."""
        return await asyncio.to_thread(self._arrived.get, timeout=_PATIENCE_S)

    def release(self) -> None:
        """Lets the turn at the bar run."""
        self._bar.release()

    async def let_through(self) -> Turn:
        """Lets the turn at the bar run and waits for the one after it."""
        self.release()
        return await self.at_bar()

    def open(self) -> None:
        """Lets everything through from now on."""
        self._open = True
        self._bar.release()
