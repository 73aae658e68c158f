"""Which denoiser gets the next tile: the one with the fewest.

Ray Serve's own router looks at two replicas at random, and at queue lengths from before the burst that it is
routing: of 64 tiles sent to 8 denoisers at once it gave one 3 and another 15. This one refuses to know tiles:
all requests of the deployment count alike.
"""

from __future__ import annotations

import random
import time
from collections import Counter

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

_SENT_WITHIN_S = 1.0


class FewestFirstRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """Looks at every replica: what is known to run there, and what was just promised to it."""

    def initialize_state(self) -> None:
        """Called by Ray Serve before the first request."""
        self._promised: Counter[ReplicaID] = Counter()  # chosen, and not yet sent
        self._chosen_at = 0.0

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The replica with the fewest requests; any of equals, so that several gateways spread theirs."""
        if not candidate_replicas:
            return []
        now = time.monotonic()
        if now - self._chosen_at > _SENT_WITHIN_S:
            self._promised.clear()  # by now it was sent, or given up
        self._chosen_at = now
        chosen = min(
            candidate_replicas, key=lambda one: (self._load(one.replica_id), random.random())
        )
        self._promised[chosen.replica_id] += 1
        return [[chosen]]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Counted as running there from now on."""
        super().on_send_request(replica_id)
        self._promised[replica_id] = max(self._promised[replica_id] - 1, 0)

    def _load(self, replica_id: ReplicaID) -> int:
        running: int = self.replica_queue_len_cache.get(replica_id) or 0
        return running + self._promised[replica_id]
