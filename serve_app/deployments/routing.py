"""Which denoiser gets the next tile: the one with the fewest.

Ray Serve's own router looks at two replicas at random, and at queue lengths from before the burst that it is
routing: of 64 tiles sent to 8 denoisers at once it gave one 3 and another 15. This one refuses to know tiles:
all requests of the deployment count alike.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from weakref import WeakKeyDictionary

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)


class FewestFirstRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """Looks at every replica: what is known to run there, and what was just promised to it."""

    def initialize_state(self) -> None:
        """Called by Ray Serve before the first request."""
        self._sent: Counter[ReplicaID] = Counter()  # and not yet ended
        # One for each request that waits: its future is done once it is sent or given up.
        self._promised: WeakKeyDictionary[asyncio.Future[RunningReplica], ReplicaID] = (
            WeakKeyDictionary()
        )

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The replica with the fewest requests; any of equals, so that several gateways spread theirs."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # else Ray asks again at once
        if not candidate_replicas:
            return []
        own = None if pending_request is None else pending_request.future
        promises = self._promises_without(own)
        chosen = min(
            candidate_replicas,
            key=lambda one: (
                self._runs(one.replica_id) + promises[one.replica_id],
                random.random(),
            ),
        )
        if own is not None:
            if own not in self._promised:
                own.add_done_callback(self._forget)  # runs after the one that sends
            self._promised[own] = chosen.replica_id
        return [[chosen]]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Counted as running there from now on."""
        super().on_send_request(replica_id)
        self._sent[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """However it ended: also when the replica refused it or died."""
        super().on_request_completed(replica_id, internal_request_id)
        self._sent[replica_id] -= 1
        if self._sent[replica_id] <= 0:
            del self._sent[replica_id]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Nothing is kept of those that are gone."""
        super().update_replicas(replicas)
        for gone in self._sent.keys() - self.curr_replicas.keys():
            del self._sent[gone]

    def _runs(self, replica_id: ReplicaID) -> int:
        # What the replica told counts other gateways' requests too, but Ray forgets it after 10 s without news.
        told: int = self.replica_queue_len_cache.get(replica_id) or 0
        return max(told, self._sent[replica_id])

    def _promises_without(self, own: asyncio.Future[RunningReplica] | None) -> Counter[ReplicaID]:
        # Ray may give a replica to the oldest request instead of the one that it was chosen for.
        return Counter(
            future.result().replica_id if future.done() else replica_id
            for future, replica_id in self._promised.items()
            if future is not own and not future.cancelled()
        )

    def _forget(self, future: asyncio.Future[RunningReplica]) -> None:
        self._promised.pop(future, None)
