"""The one error tree: everything that Tessera raises on purpose. It knows no HTTP.

    TesseraError
    ├── RequestError            the caller can mend it
    │   ├── InvalidParameter    a parameter is unknown, out of range, or not taken by the model
    │   ├── UnsupportedImage    the bytes are not a picture of a format that we read
    │   ├── BrokenImage         a picture of a known format that does not decode
    │   ├── TooLarge            over a limit on bytes or pixels
    │   ├── NotFound            no such job, item or delivery of this tenant
    │   ├── WrongState          a job or an item is not where it would have to be for this
    │   ├── IdempotencyConflict one key for two different jobs
    │   └── QuotaExceeded       the tenant has too much unfinished
    ├── Busy                    nothing was started; try again after a while
    ├── DeadlineExceeded        accepted, but not finished within the request's time
    ├── TileFailed              a tile could not be computed
    │   └── GarbageTile         it was computed, and shows nothing of its source
    ├── BlobFailed              a file that was kept cannot be used
    │   ├── BlobMissing         it is not there
    │   └── BlobCorrupt         it is not what was written
    ├── LeaseLost               a runner wrote about an item that is somebody else's now
    ├── ReplicaLost             the process that held the work died; the same work may be sent again
    └── ConfigurationError      a setting or a model folder that cannot be used; raised at start

Every error carries a sentence for a person (`detail`) and, where they exist, the field at fault and what
is allowed. Each crosses process borders whole (`pickle`), because a tile fails far from its caller, and holds
nothing but what is text everywhere: half of a surrogate pair, quoted from a request, ends the process that has
to tell it to another through Ray.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TesseraError(Exception):
    """The root of the tree.

    Args:
        detail: One sentence that says what was wrong, for the person who can change it.
        field: The parameter at fault, by its name in `UpscaleParams`.
        allowed: What would have been accepted, in words or as a range.
        retry_after_s: Seconds after which another try makes sense.
    """

    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        allowed: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.detail = _plain(detail)
        super().__init__(self.detail)
        self.field = None if field is None else _plain(field)
        self.allowed = None if allowed is None else _plain(allowed)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {"field": self.field, "allowed": self.allowed, "retry_after_s": self.retry_after_s}
        return _rebuild, (type(self), self.detail, facts)


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def kind_of(code: str) -> type[TesseraError]:
    """The class of errors that a code stands for; the root where there is none.

    Only classes that state a code count: Ray derives classes of its own from those that it has carried.
    """
    waiting: list[type[TesseraError]] = [TesseraError]
    for kind in waiting:
        if vars(kind).get("code") == code:
            return kind
        waiting += kind.__subclasses__()
    return TesseraError


def _rebuild(kind: type[TesseraError], detail: str, facts: dict[str, Any]) -> TesseraError:
    return kind(detail, **facts)


class RequestError(TesseraError):
    """The request cannot be served as it is; the caller can mend it."""

    code = "bad-request"
    title = "Bad request"


class InvalidParameter(RequestError):
    """A parameter is unknown, malformed, out of its range, or not taken by the model."""

    code = "invalid-parameter"
    title = "Invalid parameter"


class UnsupportedImage(RequestError):
    """The bytes are not a picture of a format that Tessera reads."""

    code = "unsupported-image"
    title = "Unsupported image"


class BrokenImage(RequestError):
    """The bytes begin as a picture of a known format but do not decode."""

    code = "broken-image"
    title = "Broken image"


class TooLarge(RequestError):
    """The upload, the source or the result is over a limit."""

    code = "too-large"
    title = "Too large"


class NotFound(RequestError):
    """There is no such job, item or delivery, or it is another tenant's."""

    code = "not-found"
    title = "Not found"


class WrongState(RequestError):
    """A job or an item is not in a state in which this can be done."""

    code = "wrong-state"
    title = "Wrong state"


class IdempotencyConflict(RequestError):
    """One `Idempotency-Key` was used for two different jobs."""

    code = "idempotency-conflict"
    title = "Idempotency conflict"


class QuotaExceeded(RequestError):
    """The tenant has as much unfinished as it may; `allowed` says what is left."""

    code = "quota-exceeded"
    title = "Quota exceeded"


class Busy(TesseraError):
    """Nothing was started, since all places are taken; `retry_after_s` says when to try again."""

    code = "busy"
    title = "Busy"


class DeadlineExceeded(TesseraError):
    """The work was accepted but did not finish within the request's time."""

    code = "deadline-exceeded"
    title = "Deadline exceeded"


class TileFailed(TesseraError):
    """A tile could not be computed; other tiles are unaffected."""

    code = "tile-failed"
    title = "Tile failed"


class GarbageTile(TileFailed):
    """A tile was computed but is NaN, or shows nothing of its source; another seed may mend it."""

    code = "garbage-tile"
    title = "Garbage tile"


class BlobFailed(TesseraError):
    """A file that was kept cannot be used."""

    code = "blob-failed"
    title = "Blob failed"


class BlobMissing(BlobFailed):
    """A file that was kept is not there."""

    code = "blob-missing"
    title = "Blob missing"


class BlobCorrupt(BlobFailed):
    """A file that was kept is not what was written."""

    code = "blob-corrupt"
    title = "Blob corrupt"


class LeaseLost(TesseraError):
    """A runner wrote about an item whose lease has passed on; what it wrote was refused."""

    code = "lease-lost"
    title = "Lease lost"


class ReplicaLost(TesseraError):
    """The process that held the work died. A tile computed twice is the same tile, so send it again."""

    code = "replica-lost"
    title = "Replica lost"


class ConfigurationError(TesseraError):
    """A setting or a model folder that cannot be used. Raised at start, never for a request."""

    code = "configuration-error"
    title = "Configuration error"
