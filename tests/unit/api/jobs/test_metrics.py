import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve_app.api import metrics
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.store import Store
from tests.unit.api.jobs.conftest import Door, settings_of


async def read(door: Door) -> dict[tuple[str, str], float]:
    """What Prometheus' own parser reads."""
    answer = await door.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    found = text_string_to_metric_families(answer.text)
    return {
        (sample.name, sample.labels.get("status", "")): sample.value
        for family in found
        for sample in family.samples
    }


async def test_every_replica_tells_the_same(
    store: Store, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "FRESH_S", 0)
    one, other = (Door(store, blobs, settings_of()) for _ in range(2))
    await one.submitted()
    before = await read(one)
    assert before["tessera_job_items", "queued"] == 3
    assert before["tessera_job_items", "succeeded"] == 0
    assert before["tessera_jobs", "queued"] == 1
    assert before["tessera_job_oldest_queued_seconds", ""] >= 0
    await other.work()
    after = await read(one)
    assert after == await read(other)
    assert after["tessera_job_items", "succeeded"] == 3
    assert after["tessera_job_attempts", ""] == 3
    assert after["tessera_job_checkpoint_hits", ""] == 0
    assert after["tessera_job_webhook_messages", "pending"] == 0


async def test_a_reading_is_kept_for_a_while(store: Store, blobs: Blobs) -> None:
    door = Door(store, blobs, settings_of())
    before = await read(door)
    await door.submitted()
    assert await read(door) == before
