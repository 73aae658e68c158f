"""What becomes of an item: its result, or its reason."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from serve_app.errors import BlobMissing, Busy, InvalidParameter, ReplicaLost
from serve_app.jobs import attempt, telling
from serve_app.jobs.attempt import problem
from serve_app.jobs.records import NewItem
from serve_app.jobs.states import ItemStatus
from serve_app.testing import photo_like, png_bytes
from tests.workshop import PARAMS, PHOTO, TILES, Workshop, open_workshop


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workshop]:
    monkeypatch.setattr(attempt, "_RETRY_S", 0.01)
    monkeypatch.setattr(telling, "EVERY_S", 0.01)
    async with open_workshop(tmp_path) as workshop:
        yield workshop


async def test_a_result_is_kept_with_all_that_is_known_of_it(shop: Workshop):
    job = await shop.submit()
    shop.start()
    [item] = await shop.ended(job)
    expected, result = await shop.directly(), item.result
    assert result is not None
    assert (result.height, result.width, result.media_type) == (300, 420, "image/png")
    assert result.size_bytes == len(expected.image)
    details = json.loads(json.dumps(result.details))
    assert (details["tiles"], details["tiles_reused"], details["frames"]) == (TILES, 0, 1)
    assert details["params"]["seed"] == PARAMS["seed"]
    assert details["report"]["lr_psnr_db"] > 20


async def test_what_the_caller_can_mend_is_not_tried_again(shop: Workshop):
    job = await shop.submit(b"no picture", PHOTO)
    shop.start()
    failed, fine = await shop.ended(job)
    assert (failed.status, failed.attempts) == (ItemStatus.FAILED, 1)
    assert failed.error is not None
    assert failed.error["type"] == "urn:tessera:problem:unsupported-image"
    assert "PNG" in failed.error["allowed"]
    assert fine.status is ItemStatus.SUCCEEDED  # one item's failure is its own


async def test_parameters_that_no_longer_fit_are_a_reason(shop: Workshop):
    job = await shop.submit(scale=99)
    shop.start()
    [item] = await shop.ended(job)
    assert item.error is not None
    assert (item.attempts, item.error["field"]) == (1, "scale")


async def test_busy_counts_no_attempt(shop: Workshop):
    shop.denoiser.errors = [Busy("full", retry_after_s=0.01)] * 5
    job = await shop.submit()
    shop.start()
    [item] = await shop.ended(job)
    assert (item.status, item.attempts) == (ItemStatus.SUCCEEDED, 1)


async def test_a_lost_replica_is_tried_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serve_app.tiles._FIRST_RETRY_S", 0.001)
    within = 1 + shop.settings.requests.tile_retries
    shop.denoiser.errors = [ReplicaLost("gone")] * within
    job = await shop.submit()
    shop.start()
    [item] = await shop.ended(job)
    assert (item.status, item.attempts) == (ItemStatus.SUCCEEDED, 2)


async def test_after_the_last_attempt_the_reason_is_kept(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("serve_app.tiles._FIRST_RETRY_S", 0.001)
    shop.denoiser.errors = [ReplicaLost("gone")] * 100
    job = await shop.submit()
    shop.start()
    [item] = await shop.ended(job)
    assert (item.status, item.attempts) == (ItemStatus.FAILED, 3)
    assert item.error is not None
    assert (item.error["type"], item.error["detail"]) == (
        "urn:tessera:problem:replica-lost",
        "gone",
    )


async def test_a_bug_is_tried_again_and_named(shop: Workshop):
    shop.denoiser.errors = [KeyError("x")] * 100
    job = await shop.submit()
    shop.start()
    [item] = await shop.ended(job)
    assert (item.status, item.attempts) == (ItemStatus.FAILED, 3)
    assert item.error is not None
    assert item.error["type"] == "urn:tessera:problem:internal-error"
    assert "KeyError" in item.error["detail"]


async def test_a_source_that_is_gone_is_a_reason(shop: Workshop):
    job = await shop.submit_items(NewItem("a.png", dict(PARAMS), source="0" * 64))
    shop.start()
    [item] = await shop.ended(job)
    assert item.error is not None
    assert (item.attempts, item.error["type"]) == (3, f"urn:tessera:problem:{BlobMissing.code}")


async def test_a_source_by_its_address_is_fetched(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, int]] = []

    async def fetch(url: str, limit_bytes: int, request_id: str) -> bytes:
        asked.append((url, limit_bytes))
        return PHOTO

    monkeypatch.setattr(shop.fetcher, "fetch", fetch)
    item = NewItem("a.png", dict(PARAMS), source_url="https://example.org/a.png")
    job = await shop.submit_items(item)
    shop.start()
    [done] = await shop.ended(job)
    assert done.result is not None
    assert await shop.blobs.get(done.result.blob) == (await shop.directly()).image
    assert asked == [("https://example.org/a.png", shop.settings.images.upload_bytes)]


async def test_followers_hear_of_tiles_and_see_a_preview(shop: Workshop):
    shop.denoiser.free = 2
    job = await shop.submit(png_bytes(photo_like(500, 700)))
    shop.start()
    await shop.kept(job, 2)
    shop.denoiser.gate.set()
    await shop.ended(job)
    events = await shop.store.events(job.id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    told = [event.data["tiles_done"] for event in events if event.kind == "item.progress"]
    assert told
    assert told == sorted(told)
    seen = [event.data["blob"] for event in events if event.kind == "item.preview"]
    with Image.open(io.BytesIO(await shop.blobs.get(seen[-1]))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (320, 229))


def test_a_problem_has_the_fields_that_exist():
    whole = InvalidParameter("steps: too many", field="steps", allowed="1 to 100")
    assert problem(whole) == {
        "type": "urn:tessera:problem:invalid-parameter",
        "title": "Invalid parameter",
        "detail": "steps: too many",
        "field": "steps",
        "allowed": "1 to 100",
    }
    assert set(problem(ReplicaLost("gone"))) == {"type", "title", "detail"}
