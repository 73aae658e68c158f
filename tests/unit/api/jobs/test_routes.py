"""Listing, giving up, trying again, and whose job it is."""

import pytest

from tests.unit.api.conftest import problem
from tests.unit.api.jobs.conftest import FILES, URL, Door

NONE = "job_" + "0" * 26


async def test_pages(door: Door) -> None:
    made = [await door.submitted(files=FILES[:1]) for _ in range(3)]
    first = (await door.http.get(URL, params={"limit": 2})).json()
    second = (await door.http.get(URL, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    found = [job["id"] for job in first["jobs"] + second["jobs"]]
    assert sorted(found, reverse=True) == found
    assert sorted(found) == sorted(made)
    assert second["next_cursor"] is None
    queued = (await door.http.get(URL, params={"status": "queued"})).json()
    failed = (await door.http.get(URL, params={"status": "failed"})).json()
    assert (len(queued["jobs"]), len(failed["jobs"])) == (3, 0)


async def test_items(door: Door) -> None:
    here = f"{URL}/{await door.submitted()}/items"
    await door.work(1)
    first = (await door.http.get(here, params={"limit": 2})).json()
    second = (await door.http.get(here, params={"limit": 2, "after": first["next_after"]})).json()
    found = first["items"] + second["items"]
    assert [item["number"] for item in found] == [0, 1, 2]
    assert second["next_after"] is None
    assert [item["status"] for item in found] == ["succeeded", "queued", "queued"]
    result = found[0]["result"]
    assert (result["media_type"], result["width"], result["height"]) == ("image/png", 32, 24)
    assert (await door.http.get(result["url"])).status_code == 200
    assert found[1]["result"] is None
    waiting = (await door.http.get(here, params={"status": "queued"})).json()
    assert [item["number"] for item in waiting["items"]] == [1, 2]


async def test_a_job_is_given_up_and_tried_again(door: Door) -> None:
    job_id = await door.submitted()
    await door.work(1)
    job = (await door.http.delete(f"{URL}/{job_id}")).json()
    assert (job["status"], job["counts"]["cancelled"]) == ("cancelled", 2)
    assert (await door.http.delete(f"{URL}/{job_id}")).json() == job
    job = (await door.http.post(f"{URL}/{job_id}/retry")).json()
    assert (job["counts"]["queued"], job["counts"]["succeeded"]) == (2, 1)
    await door.work()
    job = (await door.http.get(f"{URL}/{job_id}")).json()
    assert job["status"] == "succeeded"
    assert job["finished_at"].endswith("Z")


async def test_one_failure_is_one_items(door: Door) -> None:
    job_id = await door.submitted(files=[*FILES, ("image", ("bad.png", b"no picture"))])
    await door.work()
    job = (await door.http.get(f"{URL}/{job_id}")).json()
    assert (job["counts"]["succeeded"], job["counts"]["failed"]) == (3, 1)
    failed = await door.http.get(f"{URL}/{job_id}/items", params={"status": "failed"})
    assert failed.json()["items"][0]["error"] == {"detail": "broken"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/items"),
        ("DELETE", ""),
        ("POST", "/retry"),
        ("GET", "/results"),
        ("GET", "/results/0"),
        ("GET", "/items/0/preview"),
        ("GET", "/events"),
    ],
)
async def test_a_job_of_nobody_and_of_another(door: Door, method: str, path: str) -> None:
    job_id = await door.submitted()
    for name, tenant in ((NONE, "default"), ("nonsense%00", "default"), (job_id, "other")):
        headers = {"X-Tenant-Id": tenant}
        response = await door.http.request(method, f"{URL}/{name}{path}", headers=headers)
        problem(response, 404, "not-found")
    response = await door.http.request(
        method, f"{URL}/{job_id}{path}", headers={"X-Tenant-Id": "a b"}
    )
    problem(response, 422, "invalid-parameter", "X-Tenant-Id")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("?limit=0", "limit"),
        ("?status=lost", "status"),
        ("?cursor=x", "cursor"),
        (f"/{NONE}/items?after=-2", "after"),
        (f"/{NONE}/items?limit=9999", "limit"),
        (f"/{NONE}/results/99999999999", "number"),
        (f"/{NONE}/results/x", "number"),
        (f"/{NONE}/events?after=x", "after"),
    ],
)
async def test_bad_numbers(door: Door, path: str, field: str) -> None:
    problem(await door.http.get(URL + path), 422, "invalid-parameter", field)


async def test_the_document_describes_all(door: Door) -> None:
    paths = (await door.http.get("/openapi.json")).json()["paths"]
    here = "/v1/jobs/{job_id}"
    expected = {URL, here, *(here + tail for tail in ("/items", "/retry", "/results", "/events"))}
    assert expected | {here + "/results/{number}", here + "/items/{number}/preview"} <= set(paths)
    bodies = paths[URL]["post"]["requestBody"]["content"]
    assert set(bodies) == {"multipart/form-data", "application/zip", "application/json"}
