"""Runs items: claims them, makes their requests, keeps their tiles and hands in their results.

A runner owns nothing. It may die at any moment: its leases run out, and whoever takes over finds the tiles
that were finished. It refuses to know where denoisers are, and how tables look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serve_app.errors import LeaseLost
from serve_app.jobs.attempt import Attempt
from serve_app.jobs.records import Lease
from serve_app.jobs.store import Store
from serve_app.settings import JobSettings

logger = logging.getLogger("tessera.jobs")


@dataclass
class _Running:
    """An item at work. `why` says what ended it from outside."""

    lease: Lease
    task: asyncio.Task[None]
    why: str = ""


class Runner:
    """Works until it is stopped.

    Args:
        store: Where items come from.
        attempt: Works on one leased item.
        settings: How many at once, and how often the store is asked.
        name: Of this runner, unique among all.
    """

    def __init__(self, store: Store, attempt: Attempt, settings: JobSettings, name: str) -> None:
        self._store = store
        self._attempt = attempt
        self._settings = settings
        self._name = name
        self._running: dict[tuple[str, int], _Running] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Claims and works until `stop`; a store that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_leases())
            while not self._stopping.is_set():
                claimed = await self._tried(self._claim)
                if not claimed:
                    await self._pause(self._settings.poll_s)

    async def stop(self) -> None:
        """Hands everything back at once."""
        self._stopping.set()
        for running in list(self._running.values()):
            running.why = running.why or "stop"
            running.task.cancel()
        await asyncio.gather(*(r.task for r in self._running.values()), return_exceptions=True)

    async def _claim(self) -> bool:
        room = self._settings.items_at_once - len(self._running)
        if room <= 0:
            return False
        leases = await self._store.claim(self._name, self._settings.lease_s, room)
        for lease in leases:
            running = _Running(lease, asyncio.current_task())  # type: ignore[arg-type]
            running.task = asyncio.create_task(self._work(running))
            self._running[lease.key] = running
        return bool(leases)

    async def _work(self, running: _Running) -> None:
        lease = running.lease
        try:
            await self._attempt.run(lease)
        except LeaseLost:
            logger.warning("jobs.lease_lost", extra=_facts(lease))
        except asyncio.CancelledError:
            await self._give_up(running)
        except Exception:
            logger.exception("jobs.attempt_broke", extra=_facts(lease))  # its lease runs out
        finally:
            self._running.pop(lease.key, None)

    async def _give_up(self, running: _Running) -> None:
        """Says why an item was stopped; where that cannot be said, its lease runs out."""
        try:
            if running.why == "cancelled":
                await self._store.cancelled(running.lease)
            elif running.why == "stop":
                await self._store.release(running.lease)
        except LeaseLost:
            pass
        except Exception as error:
            logger.warning("jobs.not_handed_back", extra=_facts(running.lease) | {"cause": repr(error)})

    async def _keep_leases(self) -> None:
        while not self._stopping.is_set():
            await self._pause(self._settings.heartbeat_s)
            await self._tried(self._renew)

    async def _renew(self) -> bool:
        leases = [running.lease for running in self._running.values()]
        if not leases:
            return False
        heard = await self._store.heartbeat(leases, self._settings.lease_s)
        for key, running in list(self._running.items()):
            if key in heard.lost or key in heard.cancelled:
                running.why = "lost" if key in heard.lost else "cancelled"
                running.task.cancel()
        return True

    async def _tried(self, work: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await work()
        except Exception as error:  # the database restarts, the disk is full: it may mend itself
            logger.warning("jobs.store_away", extra={"cause": repr(error)})
            await self._pause(self._settings.poll_s)
            return False

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _facts(lease: Lease) -> dict[str, object]:
    return {"job": lease.item.job_id, "item": lease.item.number, "token": lease.token}
