from __future__ import annotations

from itertools import product

import pytest

from serve_app.errors import WrongState
from serve_app.jobs.states import (
    Counts,
    ItemEvent,
    ItemStatus,
    JobStatus,
    after,
    changes,
    job_status,
)

Q, R, S, F, C = ItemStatus
ALLOWED = {
    (Q, ItemEvent.CLAIM): R,
    (R, ItemEvent.RELEASE): Q,
    (R, ItemEvent.SUCCEED): S,
    (R, ItemEvent.REPEAT): Q,
    (R, ItemEvent.EXPIRE): Q,
    (R, ItemEvent.FAIL): F,
    (Q, ItemEvent.CANCEL): C,
    (R, ItemEvent.CANCEL): C,
    (F, ItemEvent.REVIVE): Q,
    (C, ItemEvent.REVIVE): Q,
}


@pytest.mark.parametrize(("status", "event"), list(product(ItemStatus, ItemEvent)))
def test_every_event_in_every_state(status: ItemStatus, event: ItemEvent) -> None:
    if (status, event) in ALLOWED:
        assert after(status, event) is ALLOWED[status, event]
        return
    with pytest.raises(WrongState, match=status.value):
        after(status, event)


def test_nothing_happens_to_what_has_its_result() -> None:
    assert all(S not in changes(event) for event in ItemEvent)


@pytest.mark.parametrize(
    ("counts", "cancelling", "status"),
    [
        (Counts(queued=2), False, JobStatus.QUEUED),
        (Counts(queued=1, succeeded=1), False, JobStatus.RUNNING),
        (Counts(running=1), False, JobStatus.RUNNING),
        (Counts(running=1, cancelled=1), True, JobStatus.CANCELLING),
        (Counts(succeeded=2), False, JobStatus.SUCCEEDED),
        (Counts(succeeded=2), True, JobStatus.SUCCEEDED),
        (Counts(succeeded=1, failed=1), False, JobStatus.FAILED),
        (Counts(failed=1, cancelled=1), True, JobStatus.CANCELLED),
    ],
)
def test_a_job_is_where_its_items_are(counts: Counts, cancelling: bool, status: JobStatus) -> None:
    assert job_status(counts, cancelling) is status
    assert status.ended == (counts.queued + counts.running == 0)
