"""Replicate's dialect, driven by `replicate`."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import replicate
from PIL import Image
from replicate.exceptions import ModelError, ReplicateError

from serve_app.contracts import Priority
from serve_app.errors import GarbageTile
from tests.unit.api.dialects.conftest import PNG, Counter

DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.fixture
async def client(counter: Counter) -> AsyncIterator[replicate.Client]:
    found = replicate.Client(api_token="none", base_url=counter.url)
    found.poll_interval = 0.01
    yield found
    found._client.close()
    await found._async_client.aclose()


async def test_a_picture_is_upscaled_in_one_call(
    client: replicate.Client, counter: Counter
) -> None:
    given = {"image": io.BytesIO(PNG), "scale": 2}
    url = await client.async_run("tessera/fake", input=given)  # over https a FileOutput
    async with httpx.AsyncClient() as http:
        data = (await http.get(url)).content
    assert Image.open(io.BytesIO(data)).size == (16, 12)
    assert counter.upscaler.requests[0].priority is Priority.INTERACTIVE


async def test_the_clients_synchronous_half(client: replicate.Client) -> None:
    def run() -> bytes:
        given = {"image": io.BytesIO(PNG), "scale": 3}
        url = client.run("tessera/fake:fake", input=given, file_encoding_strategy="base64")
        return httpx.get(url).content

    assert Image.open(io.BytesIO(await asyncio.to_thread(run))).size == (24, 18)


async def test_progress_is_read_from_the_logs(client: replicate.Client, counter: Counter) -> None:
    counter.go_on.clear()
    found = await client.predictions.async_create("fake", {"image": DATA_URL, "scale": 2})
    assert found.status == "starting"
    await counter.seen.wait()
    await found.async_reload()
    assert found.status == "processing"
    assert found.progress is not None
    assert (found.progress.percentage, found.progress.current, found.progress.total) == (0.5, 1, 2)
    counter.go_on.set()
    await found.async_wait()
    assert (found.status, found.model, found.version) == ("succeeded", "tessera/fake", "fake")
    assert found.output == f"{counter.url}/v1/jobs/{found.id}/results/0"
    assert found.metrics is not None
    assert found.metrics["total_time"] >= found.metrics["predict_time"] > 0


async def test_a_prediction_is_cancelled(client: replicate.Client, counter: Counter) -> None:
    counter.go_on.clear()
    found = await client.predictions.async_create("fake", {"image": DATA_URL})
    await counter.seen.wait()
    await found.async_cancel()
    await found.async_wait()
    assert found.status == "canceled"
    assert counter.upscaler.requests == []


async def test_waiting_ends_with_its_time(client: replicate.Client, counter: Counter) -> None:
    counter.go_on.clear()
    found = await client.predictions.async_create("fake", {"image": DATA_URL}, wait=1)
    assert found.status == "starting"
    counter.go_on.set()
    await found.async_wait()
    assert found.status == "succeeded"


async def test_waiting_ends_with_the_work(client: replicate.Client) -> None:
    found = await client.predictions.async_create("fake", {"image": DATA_URL}, wait=30)
    assert found.status == "succeeded"


async def test_a_failure_says_why(client: replicate.Client, counter: Counter) -> None:
    counter.upscaler.error = GarbageTile("nothing of its source")
    with pytest.raises(ModelError, match="nothing of its source"):
        await client.async_run("tessera/fake", input={"image": DATA_URL})


async def test_predictions_are_listed_by_pages(client: replicate.Client) -> None:
    ids = []
    for _ in range(22):
        found = await client.predictions.async_create("fake", {"image": DATA_URL})
        ids.append(found.id)
    page = await client.predictions.async_list()
    more = await client.predictions.async_list(page.next)
    assert [one.id for one in [*page.results, *more.results]] == ids[::-1]
    assert (page.next is None, more.next) == (False, None)


async def test_models_and_versions(client: replicate.Client, counter: Counter) -> None:
    def look() -> Any:
        model = client.models.get("tessera/fake")
        return model, model.versions.list(), model.versions.get("fake")

    model, versions, version = await asyncio.to_thread(look)
    assert (model.owner, model.name, model.latest_version.id) == ("tessera", "fake", "fake")
    assert [one.id for one in versions.results] == [version.id]
    taken = version.openapi_schema["components"]["schemas"]["Input"]["properties"]
    assert {"image", "scale", "seed"} <= taken.keys()
    with pytest.raises(ReplicateError) as caught:
        await asyncio.to_thread(client.models.get, "tessera/other")
    assert caught.value.status == 404


async def test_files_are_kept_and_described(client: replicate.Client, counter: Counter) -> None:
    kept = await client.files.async_create(io.BytesIO(PNG), filename="photo.png")
    assert (kept.size, kept.name) == (len(PNG), "photo.png")
    assert (await client.files.async_get(kept.id)).checksums == {"sha256": kept.id}
    for name in ("0" * 64, "other"):
        with pytest.raises(ReplicateError) as caught:
            await client.files.async_get(name)
        assert caught.value.status == 404
    async with httpx.AsyncClient(base_url=counter.url) as http:
        assert (await http.post("/v1/files", content=b"x")).status_code == 415
        empty = await http.post("/v1/files", files={"image": ("a", b"")})
        assert empty.status_code == 201
        other = await http.post("/v1/files", files={"other": ("a", b"x")})
        assert other.status_code == 422


@pytest.mark.parametrize(
    ("version", "given", "status"),
    [
        ("other", {"image": DATA_URL}, 404),
        ("fake", {}, 422),
        ("fake", {"image": DATA_URL, "nonsense": 1}, 422),
        ("fake", {"image": DATA_URL, "scale": 9}, 422),
        ("fake", {"image": "https://example.com/a.png"}, 422),
        ("fake", {"image": "http://[/"}, 422),
        ("fake", {"image": "data:image/png;base64,bm8gcGljdHVyZQ=="}, 415),
    ],
)
async def test_what_is_refused(
    client: replicate.Client, version: str, given: dict[str, Any], status: int
) -> None:
    with pytest.raises(ReplicateError) as caught:
        await client.predictions.async_create(version, given)
    assert caught.value.status == status
    assert caught.value.title
    assert caught.value.detail


async def test_webhooks_are_refused_where_they_are_off_unless_nothing_would_be_told(
    client: replicate.Client,
) -> None:
    hook = {"webhook": "https://example.com/hook"}
    with pytest.raises(ReplicateError, match="webhooks are switched off"):
        await client.predictions.async_create("fake", {"image": DATA_URL}, **hook)
    quiet = hook | {"webhook_events_filter": ["start"]}
    found = await client.predictions.async_create("fake", {"image": DATA_URL}, **quiet)
    assert found.id.startswith("job_")
