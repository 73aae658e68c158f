"""The corpus against the decoder alone: stated outcomes, and none costs the decoder's process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serve_app.api.problems import status_of
from serve_app.errors import RequestError
from serve_app.imaging import errands
from serve_app.imaging.codec import Picture
from serve_app.imaging.inspect import FIELD, inspect
from serve_app.imaging.motion import count_frames
from serve_app.imaging.worker import DecodeWorker
from serve_app.levels import from_levels
from tests.corpus import LIMITS, Case, bombs, corpus, lies
from tests.corpus.judge import fault

CASES = corpus()


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    worker = DecodeWorker()
    yield worker
    worker.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_file_has_its_stated_outcome(worker: DecodeWorker, case: Case) -> None:
    before = worker.pid
    try:
        picture = _decoded(worker, case)
    except RequestError as error:
        found = fault(case, status_of(error))
    else:
        alpha = None if picture.alpha is None else from_levels(picture.alpha) * 255
        found = fault(case, 200, from_levels(picture.colour) * 255, alpha)
    assert found is None
    assert before in (None, worker.pid)


def _decoded(worker: DecodeWorker, case: Case) -> Picture:
    """Of a moving picture, the first frame, by the way that all of them go."""
    data = case.data
    count = count_frames(data, inspect(data, LIMITS), LIMITS) if case.animated else 1
    if count > 1:
        data = worker.run(errands.frames(data, LIMITS, FIELD, count)).pictures[0]
    return worker.decode(data, LIMITS)


def test_there_are_enough_and_of_every_kind() -> None:
    assert len(CASES) >= 200
    kinds = {case.kind for case in CASES}
    assert len(kinds) >= 12
    assert all(200 <= status < 500 for case in CASES for status in case.statuses)
    assert sum(case.statuses == {200} for case in CASES) >= 100


def test_it_is_made_alike_each_time() -> None:
    for room in (bombs, lies):
        first, second = ([case.data for case in room.cases()] for _ in range(2))
        assert first == second


def test_bombs_are_small() -> None:
    assert max(len(case.data) for case in bombs.cases()) < 8 * 2**20
