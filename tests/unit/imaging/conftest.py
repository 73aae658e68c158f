"""Fixtures that more than one module of this room needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from serve_app.imaging import worker as worker_module
from serve_app.imaging.worker import DecodeWorker, DecodeWorkers


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes these the process's workers; they end with the test."""
    made: list[DecodeWorker] = []

    def use(*workers: DecodeWorker) -> None:
        made.extend(workers)
        monkeypatch.setattr(worker_module, "_workers", DecodeWorkers(workers))

    yield use
    for worker in made:
        worker.close()
