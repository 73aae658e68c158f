import threading
from pathlib import Path

import httpx
import pytest

from serve_app import errors
from serve_app.api import create_api
from serve_app.client import Client, ClientJob, Progress
from serve_app.client.asynchronous import AsyncClient, AsyncJob
from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL, FakeUpscaler, photo_like, png_bytes
from tests.unit.live_jobs import JobServer

PNG = png_bytes(photo_like(6, 8, seed=1))
STEP = Progress(stage="denoise", tiles_done=0, tiles_total=2, steps_done=3, steps_total=16)


def client_of(fake: FakeUpscaler) -> Client:
    return Client("http://tessera", transport=httpx.ASGITransport(create_api(fake, Settings())))


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (ClientJob, AsyncJob)])
def test_both_clients_offer_the_same(one: type, other: type) -> None:
    offered = [{n for n in vars(kind) if not n.startswith("_")} for kind in (one, other)]
    assert offered[0] - {"record"} == offered[1]  # which the other sets when it is made


def test_a_picture_is_upscaled() -> None:
    fake, reports = FakeUpscaler(progress=[STEP]), list[Progress]()
    with client_of(fake) as client:
        result = client.upscale(PNG, scale=2, seed=5, on_progress=reports.append)
        assert (result.params.scale, result.params.seed) == (2, 5)
        assert client.models() == [FAKE_MODEL]
        assert client.ready() is True
        assert client.plan(PNG, scale=2).width == 16
    assert reports == [STEP]


def test_errors_are_those_of_the_tree() -> None:
    fake = FakeUpscaler(errors.TooLarge("Too large."))
    with client_of(fake) as client, pytest.raises(errors.TooLarge, match="Too large"):
        client.upscale(PNG)


def test_threads_share_a_client() -> None:
    found = list[int]()
    with client_of(FakeUpscaler()) as client:

        def work(seed: int) -> None:
            found.append(client.upscale(PNG, seed=seed).params.seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == list(range(8))


def test_a_closed_client_says_so_and_leaves_no_thread() -> None:
    before = threading.active_count()
    client = client_of(FakeUpscaler())
    client.close()
    client.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="closed"):
        client.ready()


def test_a_jobs_whole_life(server: JobServer, tmp_path: Path) -> None:
    with Client(server.url, tenant="sync") as client:
        job = client.submit([PNG, PNG], scale=2)
        kinds = [event.kind for event in job.events()]
        assert (kinds[0], kinds[-1]) == ("job.created", "job.finished")
        assert job.wait().status == job.refresh().status == job.status == "succeeded"
        assert [item.number for item in job.items()] == [0, 1]
        assert len(job.download(tmp_path)) == 2
        assert job.download_zip(tmp_path / "all.zip").exists()
        assert client.job(job.id).record == job.record
        assert [found.id for found in client.jobs()] == [job.id]


def test_a_job_is_cancelled_and_events_may_be_left(server: JobServer) -> None:
    server.allowed = server.ended
    with Client(server.url, tenant="leaves") as client:
        job = client.submit([PNG])
        events = job.events()
        assert next(events).kind == "job.created"
        events.close()
        job.cancel()
        assert job.wait().status == "cancelled"
        server.allowed = 10_000
        job.retry()
        assert job.wait().status == "succeeded"
