"""Tiles go to the denoiser that has fewest, also within one burst."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentHandleSource, DeploymentID
from ray.serve.request_router import ReplicaID

from serve_app.deployments import routing
from serve_app.deployments.routing import FewestFirstRouter

DEPLOYMENT = DeploymentID(name="Denoiser", app_name="app")


def replicas(count: int) -> list[Any]:
    return [
        SimpleNamespace(replica_id=ReplicaID(str(number), DEPLOYMENT)) for number in range(count)
    ]


@pytest.fixture
def router() -> FewestFirstRouter:
    made = FewestFirstRouter(
        DEPLOYMENT, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True
    )
    made.initialize_state()
    return made


async def chosen(router: FewestFirstRouter, among: list[Any]) -> ReplicaID:
    ((one,),) = await router.choose_replicas(among)
    return one.replica_id


async def test_a_burst_is_spread_evenly_before_any_of_it_is_sent(router: FewestFirstRouter):
    eight = replicas(8)
    got = Counter([await chosen(router, eight) for _ in range(64)])
    assert set(got.values()) == {8}


async def test_what_runs_already_counts(router: FewestFirstRouter):
    busy, other = replicas(2)
    router.on_new_queue_len_info(busy.replica_id, 3)
    got = [await chosen(router, [busy, other]) for _ in range(4)]
    assert got[:3] == [other.replica_id] * 3


async def test_what_was_sent_is_not_counted_twice(router: FewestFirstRouter):
    one, other = replicas(2)
    for replica in (one, other):
        router.on_new_queue_len_info(replica.replica_id, 0)
    for _ in range(2):
        router.on_send_request(await chosen(router, [one]))
    got = Counter([await chosen(router, [one, other]) for _ in range(4)])
    assert got == {one.replica_id: 1, other.replica_id: 3}
    router.decrement_queue_len_cache(one.replica_id)
    router.decrement_queue_len_cache(one.replica_id)
    assert await chosen(router, [one, other]) == one.replica_id


async def test_a_promise_that_was_never_kept_is_forgotten(
    router: FewestFirstRouter, monkeypatch: pytest.MonkeyPatch
):
    now = 100.0
    monkeypatch.setattr(routing.time, "monotonic", lambda: now)
    one, other = replicas(2)
    for _ in range(5):
        await chosen(router, [one])
    now += 2
    got = Counter([await chosen(router, [one, other]) for _ in range(10)])
    assert got == {one.replica_id: 5, other.replica_id: 5}


async def test_without_replicas_nobody_is_chosen(router: FewestFirstRouter):
    assert await router.choose_replicas([]) == []
