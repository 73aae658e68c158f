"""What comes in by `POST /v1/jobs` is what stands in the store, or is refused with its 4xx."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from serve_app.jobs.blobs import Blobs
from serve_app.jobs.store import Store
from tests.unit.api.conftest import problem
from tests.unit.api.jobs.conftest import FILES, PICTURES, PNG, URL, Door, settings_of, zipped

BAD = ("image", ("bad.png", b"no picture"))


class TestFiles:
    async def test_many_files(self, door: Door) -> None:
        response = await door.http.post(URL, files=FILES, data={"scale": "2", "seed": "5"})
        job = response.json()
        assert response.status_code == 202
        assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
        assert job["counts"] == {
            "total": 3, "queued": 3, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0
        }  # fmt: skip
        assert (job["status"], job["priority"]) == ("queued", "batch")
        assert job["params"] == {"scale": 2, "seed": 5}
        items = await door.store.items(job["id"])
        assert [item.name for item in items] == ["0.png", "1.png", "2.png"]
        assert [await door.blobs.get(item.source or "") for item in items] == PICTURES
        assert [item.params["seed"] for item in items] == [5, 5, 5]
        assert [item.pixels for item in items] == [12 * 16] * 3

    async def test_seeds_are_drawn_once_for_each(self, door: Door) -> None:
        items = await door.store.items(await door.submitted())
        assert len({item.params["seed"] for item in items}) == 3

    async def test_pictures_have_parameters_of_their_own(self, door: Door) -> None:
        own = json.dumps([{"name": "1.png", "width": 40, "seed": 9}])
        items = await door.store.items(await door.submitted(data={"scale": "2", "items": own}))
        assert (items[0].params["scale"], items[1].params["width"]) == (2, 40)
        assert "scale" not in items[1].params
        assert items[1].params["seed"] == 9
        assert items[1].pixels == 40 * 30

    async def test_one_bad_file_among_many_fails_by_itself(self, door: Door) -> None:
        items = await door.store.items(await door.submitted(files=[*FILES, BAD]))
        assert [item.pixels > 0 for item in items] == [True, True, True, False]

    async def test_a_preset_is_filled_in(self, door: Door) -> None:
        items = await door.store.items(await door.submitted(data={"preset": "faithful"}))
        assert items[0].params["fidelity"] == 1


class TestZip:
    files: ClassVar = {"a/0.png": PICTURES[0], "b/1.png": PICTURES[1], "__MACOSX/._0.png": b"x"}

    @pytest.mark.parametrize("as_part", [True, False])
    async def test_a_zip(self, door: Door, as_part: bool) -> None:
        data = zipped(self.files)
        if as_part:
            job_id = await door.submitted(files={"archive": ("a.zip", data)}, data={"scale": "2"})
        else:
            headers = {"Content-Type": "application/zip"}
            sent: dict[str, Any] = {"content": data, "headers": headers, "params": {"scale": "2"}}
            job_id = (await door.http.post(URL, **sent)).json()["id"]
        items = await door.store.items(job_id)
        assert [(item.name, item.params["scale"]) for item in items] == [("0.png", 2), ("1.png", 2)]

    async def test_no_zip(self, door: Door) -> None:
        response = await door.http.post(URL, files={"archive": ("a.zip", b"nothing")})
        problem(response, 422, "invalid-parameter", "archive")


class TestUrls:
    async def test_switched_off(self, door: Door) -> None:
        response = await door.http.post(URL, json={"image_urls": ["https://a.example/b.png"]})
        problem(response, 422, "invalid-parameter", "image_urls[0]")

    async def test_urls(self, store: Store, blobs: Blobs) -> None:
        door = Door(store, blobs, settings_of(fetch={"enabled": True}))
        urls = ["https://a.example/x/b.png?c=1", "https://a.example"]
        items = await store.items(await door.submitted(files=None, json={"image_urls": urls}))
        assert [(item.name, item.source_url, item.source) for item in items] == [
            ("b.png", urls[0], None),
            ("picture", urls[1], None),
        ]
        given = [{"image_url": urls[0], "name": "n", "scale": 3}]
        items = await store.items(await door.submitted(files=None, json={"items": given}))
        assert (items[0].name, items[0].params["scale"]) == ("n", 3)
        for bad in ("ftp://a.example", "https://u:p@a.example", 7):
            response = await door.http.post(URL, json={"image_urls": [bad]})
            problem(response, 422, "invalid-parameter", "image_urls[0]")
        response = await door.http.post(URL, json={"items": [{"image_url": urls[0], "name": {}}]})
        problem(response, 422, "invalid-parameter", "items[0].name")


class TestKey:
    async def test_a_repetition_is_the_same_job(self, door: Door) -> None:
        headers = {"Idempotency-Key": "k"}
        first = await door.http.post(URL, files=FILES, headers=headers)
        again = await door.http.post(URL, files=FILES, headers=headers)
        assert (first.status_code, again.status_code) == (202, 200)
        assert again.json() == first.json()
        other = await door.http.post(URL, files=FILES[:2], headers=headers)
        problem(other, 422, "idempotency-conflict")
        foreign = await door.http.post(URL, files=FILES, headers=headers | {"X-Tenant-Id": "b"})
        assert foreign.status_code == 202

    async def test_no_key(self, door: Door) -> None:
        response = await door.http.post(URL, files=FILES, headers={"Idempotency-Key": "a b"})
        problem(response, 422, "invalid-parameter", "Idempotency-Key")


PLAIN = {"Content-Type": "text/plain"}
NO_STEPS = '[{"name": "0.png", "steps": 0}]'


@pytest.mark.parametrize(
    ("sent", "status", "code", "field"),
    [
        ({"content": b"x", "headers": PLAIN}, 415, "unsupported-media-type", "Content-Type"),
        ({"json": {}}, 422, "invalid-parameter", "image_urls"),
        ({"json": {"image_urls": []}}, 422, "invalid-parameter", "image"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "bad-request", "body"),
        ({"files": {"scale": (None, "2")}}, 422, "invalid-parameter", "image"),
        ({"files": [BAD]}, 415, "unsupported-image", "image"),
        ({"files": [("image", ("a.png", PNG[:30]))]}, 422, "broken-image", "image"),
        ({"files": FILES * 2}, 413, "too-large", "image"),
        ({"files": [("image", ("a.png", bytes(50_001)))]}, 413, "too-large", "image"),
        ({"files": [("image", ("a.png", bytes(40_000)))] * 3}, 413, "too-large", "body"),
        ({"files": FILES, "data": {"steps": "0"}}, 422, "invalid-parameter", "steps"),
        ({"files": FILES, "data": {"model": "no"}}, 422, "invalid-parameter", "model"),
        ({"files": FILES, "data": {"prompt": "a cat"}}, 422, "invalid-parameter", "prompt"),
        ({"files": FILES, "data": {"nonsense": "1"}}, 422, "invalid-parameter", "nonsense"),
        ({"files": FILES, "data": {"priority": "now"}}, 422, "invalid-parameter", "priority"),
        ({"files": FILES, "data": {"webhook_url": "https://a"}}, 422, "invalid-parameter", "webhook_url"),
        ({"files": FILES, "data": {"items": "["}}, 400, "bad-request", "body"),
        ({"files": FILES, "data": {"items": "{}"}}, 422, "invalid-parameter", "items"),
        ({"files": FILES, "data": {"items": "[1]"}}, 422, "invalid-parameter", "items[0]"),
        ({"files": FILES, "data": {"items": '[{"name": "x"}]'}}, 422, "invalid-parameter", "items[0].name"),
        ({"files": FILES, "data": {"items": NO_STEPS}}, 422, "invalid-parameter", "steps"),
        ({"files": FILES, "headers": {"X-Tenant-Id": "a b"}}, 422, "invalid-parameter", "X-Tenant-Id"),
        ({"files": [*FILES, ("control_image_x", ("c.png", PNG))]}, 422, "invalid-parameter", "control_image_x"),
    ],
)  # fmt: skip
async def test_refused(door: Door, sent: Any, status: int, code: str, field: str) -> None:
    problem(await door.http.post(URL, **sent), status, code, field)
    assert (await door.store.jobs("default")).jobs == []


async def test_a_quota_says_what_is_left(door: Door) -> None:
    await door.submitted()
    await door.submitted()
    document = problem(await door.http.post(URL, files=FILES), 429, "quota-exceeded")
    assert "2" in document["allowed"]


async def test_webhooks(store: Store, blobs: Blobs) -> None:
    webhooks = {"secrets": [f"whsec_{'A' * 32}"]}
    door = Door(store, blobs, settings_of(jobs={"webhooks": webhooks}))
    job = await store.job(await door.submitted(data={"webhook_url": "https://a.example/x"}))
    assert job.webhook_url == "https://a.example/x"
    for bad in (
        "a.example",
        "http://a.example",
        "https://u:p@a.example/",
        "https://",
        "https://a:22/",
    ):
        response = await door.http.post(URL, files=FILES, data={"webhook_url": bad})
        problem(response, 422, "invalid-parameter", "webhook_url")


async def test_pictures_that_an_operator_put_there(
    store: Store, blobs: Blobs, tmp_path: Path
) -> None:
    folder = tmp_path / "blobs/imports/default/holiday"
    folder.mkdir(parents=True)
    for number, picture in enumerate(PICTURES):
        (folder / f"{number}.png").write_bytes(picture)
    door = Door(store, blobs, settings_of(jobs={"imports": True}))
    job_id = await door.submitted(json={"prefix": "holiday", "scale": 2}, files=None)
    items = await store.items(job_id)
    assert [item.name for item in items] == ["0.png", "1.png", "2.png"]
    assert [await blobs.get(item.source or "") for item in items] == PICTURES
    assert items[0].params["scale"] == 2
    for wrong in ({"prefix": "../other"}, {"prefix": "none"}, {"prefix": 3}):
        problem(await door.http.post(URL, json=wrong), 422, "invalid-parameter", "prefix")
    both = {"prefix": "holiday", "image_urls": []}
    problem(await door.http.post(URL, json=both), 422, "invalid-parameter", "image_urls")
    other = await door.http.post(URL, json={"prefix": "holiday"}, headers={"X-Tenant-Id": "other"})
    problem(other, 422, "invalid-parameter", "prefix")
    off = Door(store, blobs, settings_of())
    answer = await off.http.post(URL, json={"prefix": "holiday"})
    problem(answer, 422, "invalid-parameter", "prefix")
