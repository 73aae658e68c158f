"""Jobs through real HTTP on the whole graph with the embedded model: submitted, followed, fetched."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration

URL = "/v1/jobs"
PICTURES = [png_bytes(photo_like(40, 60, seed=seed)) for seed in range(3)]
CUT = PICTURES[0][:60]
TENANT = {"X-Tenant-Id": "jobs-http"}


@pytest.fixture
def http(application: Application) -> Iterator[httpx.Client]:
    with application.client() as client:
        client.headers.update(TENANT)
        yield client


def files(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{at}.png", data)) for at, data in enumerate(pictures)]


def submitted(http: httpx.Client, *pictures: bytes, **sent: Any) -> dict[str, Any]:
    answer = http.post(URL, files=files(*pictures), **sent)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"{URL}/{job['id']}"
    return job


def followed(
    http: httpx.Client, job_id: str, after: int = 0, most: int = 10_000
) -> list[dict[str, Any]]:
    """A job's events as a browser gets them, until it ends or `most` are there."""
    found: list[dict[str, Any]] = []
    headers = {"Last-Event-ID": str(after)} if after else {}
    with http.stream("GET", f"{URL}/{job_id}/events", headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                event[name] = value
            elif event:
                found.append(event | {"data": json.loads(event["data"])})
                event = {}
                if len(found) == most:
                    break
    return found


def furthest(one: bytes, other: bytes) -> int:
    """The largest difference of two pictures, in grey levels."""
    pixels = [np.asarray(Image.open(io.BytesIO(data)), np.int16) for data in (one, other)]
    return int(abs(pixels[0] - pixels[1]).max())


def test_pictures_are_enlarged_one_by_one_and_a_broken_one_fails_alone(http: httpx.Client) -> None:
    job = submitted(http, *PICTURES, CUT, data={"scale": "2", "seed": "5"})
    first = followed(http, job["id"], most=2)
    rest = followed(http, job["id"], after=2)
    events = first + rest
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("job.created", "job.finished")
    assert (kinds.count("item.succeeded"), kinds.count("item.failed")) == (3, 1)
    job = http.get(f"{URL}/{job['id']}").json()
    assert (job["status"], job["counts"]["succeeded"], job["counts"]["failed"]) == ("failed", 3, 1)
    items = http.get(f"{URL}/{job['id']}/items").json()["items"]
    assert [item["status"] for item in items] == ["succeeded"] * 3 + ["failed"]
    assert items[3]["error"]["type"] == "urn:tessera:problem:broken-image"
    results = []
    for item, source in zip(items, PICTURES, strict=False):
        answer = http.get(item["result"]["url"])
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
        assert Image.open(io.BytesIO(answer.content)).size == (120, 80)
        form = {"scale": "2", "seed": "5"}
        direct = http.post("/v1/upscale", files={"image": source}, data=form)
        assert furthest(answer.content, direct.content) <= 2  # another company in its batches
        results.append(answer.content)
    archive = http.get(f"{URL}/{job['id']}/results")
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened_archive:
        assert opened_archive.testzip() is None
        assert [opened_archive.read(name) for name in opened_archive.namelist()] == results


def test_what_was_given_up_is_not_made_until_it_is_tried_again(http: httpx.Client) -> None:
    large = png_bytes(photo_like(500, 500))
    job = submitted(http, large, *PICTURES, data={"scale": "2"})
    job = http.delete(f"{URL}/{job['id']}").json()
    assert job["status"] in ("cancelling", "cancelled")
    events = followed(http, job["id"])
    assert events[-1]["event"] == "job.finished"
    job = http.get(f"{URL}/{job['id']}").json()
    assert (job["status"], job["counts"]["cancelled"]) == ("cancelled", 4)
    none = http.get(f"{URL}/{job['id']}/results")
    assert (none.status_code, none.json()["type"]) == (409, "urn:tessera:problem:wrong-state")
    again = http.post(f"{URL}/{job['id']}/retry").json()
    assert again["counts"]["queued"] + again["counts"]["running"] == 4
    followed(http, job["id"], after=job["last_event"])
    assert http.get(f"{URL}/{job['id']}").json()["status"] == "succeeded"


def test_a_repeated_submission_is_one_job(http: httpx.Client) -> None:
    key = {"Idempotency-Key": "once"}
    job = submitted(http, PICTURES[0], headers=key)
    again = http.post(URL, files=files(PICTURES[0]), headers=key)
    assert (again.status_code, again.json()["id"]) == (200, job["id"])
    other = http.post(URL, files=files(PICTURES[1]), headers=key)
    assert (other.status_code, other.json()["type"]) == (
        422,
        "urn:tessera:problem:idempotency-conflict",
    )
    listed = http.get(URL, params={"limit": 1}).json()
    assert [one["id"] for one in listed["jobs"]] == [job["id"]]
    followed(http, job["id"])


def test_jobs_belong_to_their_tenant(http: httpx.Client) -> None:
    job = submitted(http, PICTURES[0])
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/results")):
        answer = http.request(
            method, f"{URL}/{job['id']}{path}", headers={"X-Tenant-Id": "another"}
        )
        assert answer.status_code == 404
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    followed(http, job["id"])


def test_a_plan_costs_nothing(http: httpx.Client) -> None:
    plan = http.post("/v1/plan", files={"image": PICTURES[0]}, data={"scale": "8"}).json()
    assert (plan["width"], plan["height"], plan["model"]) == (480, 320, "mini")
    assert plan["tiles"] >= 2
    assert plan["tflop"] == pytest.approx(plan["tile_tflop"] * plan["tiles"])
    assert plan["tile_tflop"] > 0
    assert plan["queue_position"] is not None
