"""A server with jobs on loopback, over a real store, and a runner that works as far as it is let."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from serve_app.api import create_api
from serve_app.api.jobs.desk import Desk
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.store import Store
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler
from tests.unit.api.jobs.conftest import Door, settings_of
from tests.unit.api.live import serving_in_thread


class JobServer:
    """What tests steer.

    Attributes:
        url: Where it listens.
        allowed: Items that the runner may end in all; more may be allowed at any time.
        ended: Items that it has ended.
        on_look: Called on the runner's thread after each look for work.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.url = ""
        self.allowed = 10_000
        self.ended = 0
        self.on_look: Callable[[], None] = lambda: None
        self.settings = settings
        self.database = f"sqlite:///{folder}/jobs.db"
        self.blobs = Blobs(str(folder / "blobs"))
        self._over = threading.Event()

    def app(self) -> FastAPI:
        desk = Desk(lambda: Store.open(self.database), self.blobs, self.settings.jobs)
        return create_api(FakeUpscaler(), self.settings, desk=desk)

    async def _work(self) -> None:
        store = await Store.open(self.database)
        door = Door(store, self.blobs, self.settings)
        try:
            while not self._over.is_set():
                if self.ended < self.allowed and await door.work(1):
                    self.ended += 1
                self.on_look()
                await asyncio.sleep(0.01)
        finally:
            await door.http.aclose()
            await store.close()

    @contextmanager
    def working(self) -> Iterator[None]:
        thread = threading.Thread(target=lambda: asyncio.run(self._work()))
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


@contextmanager
def serving_jobs(folder: Path, **changes: Any) -> Iterator[JobServer]:
    """Serves jobs on a thread, and works on them on another."""
    server = JobServer(folder, settings_of(**changes))
    with serving_in_thread(server.app()) as url, server.working():
        server.url = url
        yield server
