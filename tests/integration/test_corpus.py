"""The whole corpus of hostile and odd files through real HTTP: no 5xx, no hang, no restart, bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from serve_app.testing import photo_like, png_bytes
from tests.corpus import corpus
from tests.corpus.case import good
from tests.corpus.visit import Memory, Outcome, hostile_application, replicas, send_all

pytestmark = pytest.mark.integration

MOST_BYTES_ABOVE_IDLE = 1536 * 2**20
"""Four pictures of 4 MP at once, in 16-bit levels and floats, and the decoder's own gibibyte."""


@dataclass(frozen=True)
class Visit:
    outcomes: list[Outcome]
    after: Outcome
    replicas_before: dict[int, str]
    replicas_after: dict[int, str]
    bytes_above_idle: int


@pytest.fixture(scope="module")
def visit(cluster_port: int) -> Iterator[Visit]:
    """Sends it all once; the tests look at what happened."""
    plain = photo_like(40, 50)
    ordinary = good("ordinary", "png", png_bytes(plain), plain)
    with hostile_application(cluster_port) as url:
        send_all(url, [ordinary] * 4)  # whatever is loaded at the first picture is there now
        before, memory = replicas(), Memory()
        with memory.watched():
            outcomes = send_all(url, corpus())
        (after,) = send_all(url, [ordinary])
        above = memory.peak_bytes - memory.idle_bytes
        yield Visit(outcomes, after, before, replicas(), above)


def test_each_file_has_its_stated_outcome(visit: Visit) -> None:
    assert len(visit.outcomes) >= 200
    assert [outcome.fault for outcome in visit.outcomes if outcome.fault is not None] == []


def test_no_file_is_the_servers_fault(visit: Visit) -> None:
    assert {outcome.status for outcome in visit.outcomes} == {200, 413, 415, 422}


def test_no_replica_was_restarted_and_the_next_picture_is_served(visit: Visit) -> None:
    assert len(visit.replicas_before) == 4
    assert visit.replicas_after == visit.replicas_before
    assert (visit.after.status, visit.after.fault) == (200, None)


def test_memory_stays_within_its_bound(visit: Visit) -> None:
    assert 0 < visit.bytes_above_idle < MOST_BYTES_ABOVE_IDLE
