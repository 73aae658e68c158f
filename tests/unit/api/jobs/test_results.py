"""One file, and all of them."""

import io
import zipfile

from tests.unit.api.conftest import problem
from tests.unit.api.jobs.conftest import FILES, PNG, URL, Door


async def test_one_result(door: Door) -> None:
    here = f"{URL}/{await door.submitted()}/results/1"
    problem(await door.http.get(here), 409, "wrong-state")
    await door.work()
    response = await door.http.get(here)
    item = await door.store.item(here.split("/")[3], 1)
    assert item.result is not None
    assert response.content == await door.blobs.get(item.result.blob)
    headers = response.headers
    assert headers["Content-Type"] == "image/png"
    assert headers["ETag"] == f'"{item.result.blob}"'
    assert headers["Content-Disposition"] == 'inline; filename="1-4x.png"'
    assert headers["X-Seed"] == str(item.params["seed"])
    assert headers["X-Model"] == "fake"
    assert "total;dur=" in headers["Server-Timing"]
    for known in (headers["ETag"], f'"x", W/{headers["ETag"]}', "*"):
        again = await door.http.get(here, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    other = await door.http.get(here, headers={"If-None-Match": '"x"'})
    assert other.status_code == 200
    problem(await door.http.get(here[:-1] + "3"), 404, "not-found")


async def test_a_lost_file_is_the_servers_fault(door: Door) -> None:
    here = f"{URL}/{await door.submitted()}/results/0"
    await door.work()
    item = await door.store.item(here.split("/")[3], 0)
    assert item.result is not None
    await door.blobs.delete(item.result.blob)
    problem(await door.http.get(here), 500, "blob-missing")


async def test_all_results_with_names_of_their_own(door: Door) -> None:
    named = [
        ("image", (name, FILES[place][1][1]))
        for place, name in enumerate(("a.png", "A.PNG", "b.png"))
    ]
    job_id = await door.submitted(files=named)
    here = f"{URL}/{job_id}/results"
    problem(await door.http.get(here), 409, "wrong-state")
    await door.work()
    response = await door.http.get(here)
    assert response.headers["Content-Type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert archive.testzip() is None
    assert archive.namelist() == ["a-4x.png", "1-A-4x.png", "b-4x.png"]
    results = [(await door.store.item(job_id, n)).result for n in range(3)]
    kept = [await door.blobs.get(result.blob) for result in results if result]
    assert [archive.read(name) for name in archive.namelist()] == kept


async def test_a_preview(door: Door) -> None:
    job_id = await door.submitted(files=FILES[:1])
    here = f"{URL}/{job_id}/items/0/preview"
    problem(await door.http.get(here), 404, "not-found")
    (lease,) = await door.store.claim("runner", 60, 1)
    blob = await door.blobs.put(PNG)
    await door.store.touch_blob(blob.name, blob.size_bytes)
    await door.store.progress(lease, 1, 2, blob.name)
    response = await door.http.get(here)
    assert (response.headers["Content-Type"], response.content) == ("image/jpeg", PNG)
