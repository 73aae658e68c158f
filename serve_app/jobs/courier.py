"""Brings messages to webhooks: what is due is sent, what is not taken is sent again later, for a day.

A message is written down in the transaction of what it tells of, so none is lost; one whose courier dies
between sending and writing down is sent twice, under the same id. One process of all sends. It refuses to
know what messages say.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from serve_app.fetch.poster import Poster
from serve_app.fetch.target import Refused
from serve_app.jobs.patience import being_cancelled
from serve_app.jobs.records import Delivery
from serve_app.jobs.store import Store
from serve_app.jobs.webhooks import GONE, body_of, headers_of, next_try
from serve_app.settings import WebhookSettings
from serve_app.settings.webhooks import key_of

logger = logging.getLogger("tessera.jobs")

LEADER = "webhooks"
EVERY_S = 1.0
"""Seconds between two looks at what is due."""
_LEAD_S = 60.0  # beyond the longest time of one round


class Courier:
    """Sends from time to time, where no other process does.

    Args:
        store: Knows what is due.
        poster: Sends.
        settings: Keys, and how many at once.
        name: Of this process among all.
        clock: Seconds since 1970, the store's.
    """

    def __init__(
        self,
        store: Store,
        poster: Poster,
        settings: WebhookSettings,
        name: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._poster = poster
        self._settings = settings
        self._keys = [key_of(secret) for secret in settings.secrets]
        self._name = name
        self._clock = clock

    async def run(self) -> None:
        """Sends until it is cancelled; a store that is away is asked again."""
        while not being_cancelled():
            try:
                while await self.once():
                    continue
            except Exception as error:
                logger.warning("jobs.messages_not_sent", extra={"cause": repr(error)})
            await asyncio.sleep(EVERY_S)

    async def once(self) -> int:
        """Sends what is due, a bounded number; gives how many that were."""
        if not await self._store.lead(LEADER, self._name, self._settings.total_s + _LEAD_S):
            return 0
        due = await self._store.due_deliveries(self._settings.at_once)
        await asyncio.gather(*map(self._send, due))
        return len(due)

    async def _send(self, delivery: Delivery) -> None:
        body, now = body_of(delivery), self._clock()
        status: int | None = None
        try:
            headers = headers_of(delivery, body, self._keys, now)
            status = await self._poster.post(delivery.url, body, headers)
            reason = f"the host answered {status}"
        except Refused as refused:
            reason = refused.reason
            logger.info(
                "jobs.message_refused", extra={"job": delivery.job_id, "note": refused.note[:300]}
            )
        if status is not None and 200 <= status < 300:
            await self._store.delivered(delivery.id, status)
            return
        again = next_try(delivery.attempts + 1, self._clock(), random.uniform(-1, 1))
        await self._store.undelivered(
            delivery.id, reason, None if status == GONE else again, status
        )
