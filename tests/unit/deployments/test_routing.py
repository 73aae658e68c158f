"""Tiles go to the denoiser that has fewest, also within one burst, and nothing is remembered of what ended."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, RequestMetadata
from ray.serve.request_router import PendingRequest, ReplicaID

from serve_app.deployments.routing import FewestFirstRouter

DEPLOYMENT = DeploymentID(name="Denoiser", app_name="app")
# All tiles of one picture share it, as in a gateway.
METADATA = RequestMetadata(request_id="picture", internal_request_id="picture")


class Replica:
    """What Ray's router sees of a replica."""

    max_ongoing_requests = 64

    def __init__(self, name: str) -> None:
        self.replica_id = ReplicaID(name, DEPLOYMENT)
        self.ongoing = 0
        self.asked = 0

    async def get_queue_len(self, *, deadline_s: float) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        return self.ongoing


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def router(clock: Clock) -> FewestFirstRouter:
    made = FewestFirstRouter(
        DEPLOYMENT,
        DeploymentHandleSource.REPLICA,
        use_replica_queue_len_cache=True,
        get_curr_time_s=clock,
    )
    made.initialize_state()
    return made


def replicas(count: int) -> list[Replica]:
    return [Replica(str(number)) for number in range(count)]


def request() -> PendingRequest:
    return PendingRequest(args=[], kwargs={}, metadata=METADATA)


async def send(router: FewestFirstRouter, pending: PendingRequest | None = None) -> ReplicaID:
    """Through Ray's own queues and tasks, up to where a tile would leave this process."""
    replica = await router._choose_replica_for_request(pending or request())
    router.on_send_request(replica.replica_id)
    return replica.replica_id


async def burst(router: FewestFirstRouter, count: int) -> Counter[ReplicaID]:
    return Counter(await asyncio.gather(*(send(router) for _ in range(count))))


def end(router: FewestFirstRouter, replica_id: ReplicaID) -> None:
    router.on_request_completed(replica_id, METADATA.internal_request_id)
    router.decrement_queue_len_cache(replica_id)


@pytest.mark.parametrize("lull_s", [0.0, 60.0])
async def test_a_burst_is_spread_evenly(router: FewestFirstRouter, clock: Clock, lull_s: float):
    eight = replicas(8)
    router.update_replicas(eight)
    for one in eight:
        router.on_new_queue_len_info(one.replica_id, 0)
    clock.now += lull_s
    assert set((await burst(router, 64)).values()) == {8}


async def test_what_other_gateways_sent_counts(router: FewestFirstRouter):
    busy, other = replicas(2)
    router.update_replicas([busy, other])
    router.on_new_queue_len_info(busy.replica_id, 3)
    router.on_new_queue_len_info(other.replica_id, 0)
    assert await burst(router, 3) == {other.replica_id: 3}


async def test_what_was_sent_counts_once_and_until_it_ended(router: FewestFirstRouter):
    one, other = replicas(2)
    router.update_replicas([one])
    router.on_new_queue_len_info(one.replica_id, 0)
    await burst(router, 2)
    router.update_replicas([one, other])
    router.on_new_queue_len_info(other.replica_id, 0)
    assert await burst(router, 4) == {one.replica_id: 1, other.replica_id: 3}
    end(router, one.replica_id)
    assert await burst(router, 1) == {one.replica_id: 1}


async def test_long_tiles_count_after_ray_forgot_them(router: FewestFirstRouter, clock: Clock):
    loaded, idle = replicas(2)
    router.update_replicas([loaded])
    router.on_new_queue_len_info(loaded.replica_id, 0)
    await burst(router, 32)
    loaded.ongoing = 32
    router.update_replicas([loaded, idle])
    clock.now += 60
    assert router.replica_queue_len_cache.get(loaded.replica_id) is None
    assert await burst(router, 32) == {idle.replica_id: 32}


async def test_a_request_that_is_asked_for_again_has_one_promise(router: FewestFirstRouter):
    old, new = replicas(2)
    waiting = request()
    for _ in range(120):
        await router.choose_replicas([old], waiting)
    others = [request() for _ in range(5)]
    chosen = [await router.choose_replicas([old, new], other) for other in others]
    assert Counter(one.replica_id for ((one,),) in chosen) == {old.replica_id: 2, new.replica_id: 3}


async def test_a_request_given_up_leaves_no_promise(router: FewestFirstRouter):
    full, new = replicas(2)
    full.ongoing = full.max_ongoing_requests
    router.update_replicas([full])
    waiting = [asyncio.create_task(send(router)) for _ in range(2)]
    while full.asked < 3:  # the first asks for all new replicas
        await asyncio.sleep(0)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    full.ongoing = 0
    router.update_replicas([full, new])
    for one in (full, new):
        router.on_new_queue_len_info(one.replica_id, 0)
    assert await burst(router, 4) == {full.replica_id: 2, new.replica_id: 2}


async def test_a_replica_given_to_an_older_request_counts(router: FewestFirstRouter):
    one, other = replicas(2)
    older = request()
    ((chosen,),) = await router.choose_replicas([one, other], older)
    given = other if chosen is one else one
    older.future.set_result(given)
    assert await router.choose_replicas([one, other], request()) == [[chosen]]


async def test_where_all_are_full_ray_waits_before_it_asks_again(router: FewestFirstRouter):
    pending = request()
    await router.choose_replicas([], pending)
    assert pending.routing_context.should_backoff


async def test_a_replica_that_went_is_forgotten(router: FewestFirstRouter):
    one, other = replicas(2)
    router.update_replicas([one])
    await burst(router, 3)
    router.update_replicas([other])
    end(router, one.replica_id)  # a late end is nobody's
    router.update_replicas([one, other])
    for replica in (one, other):
        router.on_new_queue_len_info(replica.replica_id, 0)
    assert await burst(router, 4) == {one.replica_id: 2, other.replica_id: 2}


async def test_an_end_of_nothing_counts_nothing(router: FewestFirstRouter, clock: Clock):
    one, other = replicas(2)
    for _ in range(3):
        end(router, one.replica_id)  # Ray calls it too where sending failed
    router.update_replicas([one])
    await burst(router, 3)
    router.update_replicas([one, other])
    clock.now += 60
    assert await burst(router, 3) == {other.replica_id: 3}


async def test_without_replicas_nobody_is_chosen(router: FewestFirstRouter):
    assert await router.choose_replicas([]) == []
