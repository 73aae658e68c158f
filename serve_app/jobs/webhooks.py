"""What a webhook is told, and how it knows who says it: the Standard Webhooks specification, 1.0.

It refuses to know how messages travel, and when.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from serve_app.jobs.records import Delivery

DELAYS_S = (5, 60, 300, 1800, 7200, 18_000, 28_800, 28_800)
"""Seconds after each attempt that was not taken; a day in all."""
SPREAD = 0.2
"""Part of a delay by which it is longer or shorter, so that what failed together is not sent together."""
GONE = 410
"""An answer that asks for no more messages."""


def message_id(delivery: Delivery) -> str:
    """Names a message; the same each time that it is sent, so that its receiver knows a repetition."""
    return f"msg_{delivery.job_id.removeprefix('job_')}_{delivery.id}"


def body_of(delivery: Delivery) -> bytes:
    """The message: what happened, when, and to which job; not the job itself, which can be asked for."""
    at = datetime.fromtimestamp(delivery.created_at, UTC).isoformat(timespec="milliseconds")
    data = {"job_id": delivery.job_id, **delivery.data, "url": f"/v1/jobs/{delivery.job_id}"}
    told = {"type": delivery.kind, "timestamp": at.replace("+00:00", "Z"), "data": data}
    return json.dumps(told, separators=(",", ":")).encode()


def headers_of(
    delivery: Delivery, body: bytes, keys: Sequence[bytes], now: float
) -> dict[str, str]:
    """The headers that prove a message: its id, the time of sending, and a signature by every key."""
    name, at = message_id(delivery), str(int(now))
    signed = b".".join((name.encode(), at.encode(), body))
    return {
        "Content-Type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": at,
        "webhook-signature": " ".join(f"v1,{_signature(key, signed)}" for key in keys),
    }


def next_try(attempts: int, now: float, spread: float) -> float | None:
    """When a message is sent again after so many attempts; None where it is given up.

    Args:
        attempts: That were made, at least 1.
        now: s since 1970.
        spread: -1 to 1: where in the spread of delays.
    """
    if attempts > len(DELAYS_S):
        return None
    return now + DELAYS_S[attempts - 1] * (1 + SPREAD * spread)


def _signature(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
