"""The states of an item and of a job, and the one table of how they change.

An item is one picture of a job. Its state changes by an event and by nothing else; a job's state follows
from how many of its items are where. This module refuses to know databases, runners and pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from serve_app.errors import WrongState


class ItemStatus(StrEnum):
    """Where one picture of a job is."""

    QUEUED = "queued"
    """It waits for a runner; it may have been tried before."""
    RUNNING = "running"
    """A runner holds it by a lease."""
    SUCCEEDED = "succeeded"
    """Its result is kept. Final."""
    FAILED = "failed"
    """It was given up, and the reason is kept. A caller may have it tried again."""
    CANCELLED = "cancelled"
    """A caller gave it up. A caller may have it tried again."""


class JobStatus(StrEnum):
    """Where a job is: what its items say together."""

    QUEUED = "queued"
    """No item has been started."""
    RUNNING = "running"
    """Some item was started, and some has not ended."""
    CANCELLING = "cancelling"
    """It was cancelled; items that were running have not heard of it yet."""
    SUCCEEDED = "succeeded"
    """Every item has its result."""
    FAILED = "failed"
    """Every item has ended, and at least one failed; the others' results are there."""
    CANCELLED = "cancelled"
    """Every item has ended, and at least one was cancelled."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it unless a caller asks."""
        return self in _ENDED


_ENDED = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}


class ItemEvent(StrEnum):
    """What can happen to an item."""

    CLAIM = "claim"
    """A runner takes it by a lease."""
    RELEASE = "release"
    """Its runner hands it back unharmed: it is shutting down, or there is no room. Counts no attempt."""
    SUCCEED = "succeed"
    """Its runner hands in a result."""
    REPEAT = "repeat"
    """Its runner failed in a way that another try may mend."""
    EXPIRE = "expire"
    """Its lease ran out: its runner is taken for dead."""
    FAIL = "fail"
    """It cannot be done, or was tried as often as allowed."""
    CANCEL = "cancel"
    """A caller gave it up."""
    REVIVE = "revive"
    """A caller wants it tried again."""


_Q, _R, _S, _F, _C = ItemStatus
_CHANGES: dict[ItemEvent, dict[ItemStatus, ItemStatus]] = {
    ItemEvent.CLAIM: {_Q: _R},
    ItemEvent.RELEASE: {_R: _Q},
    ItemEvent.SUCCEED: {_R: _S},
    ItemEvent.REPEAT: {_R: _Q},
    ItemEvent.EXPIRE: {_R: _Q},
    ItemEvent.FAIL: {_R: _F},
    ItemEvent.CANCEL: {_Q: _C, _R: _C},
    ItemEvent.REVIVE: {_F: _Q, _C: _Q},
}


def changes(event: ItemEvent) -> dict[ItemStatus, ItemStatus]:
    """The states that an event acts on, each with the state that follows."""
    return dict(_CHANGES[event])


def after(status: ItemStatus, event: ItemEvent) -> ItemStatus:
    """The state that follows.

    Raises:
        WrongState: if the event does not happen to an item in that state.
    """
    try:
        return _CHANGES[event][status]
    except KeyError:
        raise WrongState(f"an item that is {status} cannot {event}") from None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of a job's items are where."""

    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All items."""
        return self.queued + self.running + self.succeeded + self.failed + self.cancelled


def job_status(counts: Counts, cancelling: bool) -> JobStatus:
    """The state of a job whose items are there.

    Args:
        counts: Of its items.
        cancelling: Whether a caller cancelled it.
    """
    if counts.queued + counts.running == 0:
        if counts.cancelled:
            return JobStatus.CANCELLED
        return JobStatus.FAILED if counts.failed else JobStatus.SUCCEEDED
    if cancelling:
        return JobStatus.CANCELLING
    return JobStatus.QUEUED if counts.queued == counts.total else JobStatus.RUNNING
