"""Runs items: claims them, has each attempted, keeps its leases, and hands back what it cannot end.

A runner owns nothing. It may die at any moment: its leases run out, and whoever takes over finds the tiles
that were finished. It refuses to know where denoisers are, and how tables look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from serve_app.errors import LeaseLost
from serve_app.jobs.patience import patiently
from serve_app.jobs.records import Lease
from serve_app.jobs.store import Store
from serve_app.settings import JobSettings

logger = logging.getLogger("tessera.jobs")


class Attempting(Protocol):
    """Works on items; see `attempt.Attempt`."""

    async def run(self, lease: Lease) -> None:
        """Works on an item to its end; being cancelled leaves it leased. Raises LeaseLost."""
        ...


@dataclass(eq=False)
class _Running:
    """An item at work. `why` says what ended it from outside: stop, cancelled or lost."""

    lease: Lease
    task: asyncio.Task[None]
    why: str = ""

    def end(self, why: str) -> None:
        """Cancels the work; the first reason counts."""
        self.why = self.why or why
        self.task.cancel()


class Runner:
    """Works until it is stopped.

    Args:
        store: Where items come from.
        attempt: Works on one leased item.
        settings: How many at once, and how often the store is asked.
        name: Of this runner, unique among all.
    """

    def __init__(self, store: Store, attempt: Attempting, settings: JobSettings, name: str) -> None:
        self._store = store
        self._attempt = attempt
        self._settings = settings
        self._name = name
        self._running: set[_Running] = set()
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Claims and works until `stop`; a store that is away is waited for."""
        self._idle.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_leases())
                while not self._stopping.is_set():
                    if not await self._tried(lambda: self._claim(group)):
                        await self._pause(self._settings.poll_s)
        finally:
            self._idle.set()

    async def stop(self) -> None:
        """Hands everything back at once, and ends `run`."""
        self._stopping.set()
        for running in self._running:
            running.end("stop")
        await self._idle.wait()

    async def _claim(self, group: asyncio.TaskGroup) -> bool:
        room = self._settings.items_at_once - len(self._running)
        if room <= 0:
            return False
        leases = await self._store.claim(self._name, self._settings.lease_s, room)
        for lease in leases:
            running = _Running(lease, asyncio.create_task(self._attempt.run(lease)))
            self._running.add(running)
            group.create_task(self._see_through(running))
            if self._stopping.is_set():  # while the store was asked
                running.end("stop")
        return bool(leases)

    async def _see_through(self, running: _Running) -> None:
        try:
            await asyncio.wait([running.task])
            await self._settle(running)
        finally:
            running.task.cancel()  # where this runner itself is cancelled
            self._running.remove(running)

    async def _settle(self, running: _Running) -> None:
        """Says why an item was stopped from outside; where that cannot be said, its lease runs out."""
        lease = running.lease
        if running.task.cancelled():
            say = {"cancelled": self._store.cancelled, "stop": self._store.release}.get(running.why)
            try:
                if say is not None:
                    await patiently(lambda: say(lease))
            except LeaseLost:  # what was being handed in had arrived
                return
            except Exception:
                logger.exception("jobs.not_handed_back", extra=_facts(lease))
        elif isinstance(error := running.task.exception(), LeaseLost):
            logger.warning("jobs.lease_lost", extra=_facts(lease))
        elif error is not None:
            logger.error("jobs.attempt_broke", extra=_facts(lease), exc_info=error)

    async def _keep_leases(self) -> None:
        every_s = min(self._settings.heartbeat_s, self._settings.lease_s / 3)
        while not self._stopping.is_set():
            await self._pause(every_s)
            await self._tried(self._renew)

    async def _renew(self) -> bool:
        known = list(self._running)
        if not known:
            return False
        leases = [running.lease for running in known]
        heard = await self._store.heartbeat(leases, self._settings.lease_s)
        for running in known:
            if running.lease.key in heard.lost:
                running.end("lost")
            elif running.lease.key in heard.cancelled:
                running.end("cancelled")
        return True

    async def _tried(self, work: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await work()
        except Exception as error:  # the database restarts, the disk is full: it may mend itself
            logger.warning("jobs.store_away", extra={"cause": repr(error)})
            return False

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _facts(lease: Lease) -> dict[str, object]:
    return {"job": lease.item.job_id, "item": lease.item.number, "token": lease.token}
