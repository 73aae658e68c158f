"""From a job's end to a receiver that checks the signature: real store, real TLS, the public library."""

import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from serve_app.fetch.poster import Poster
from serve_app.jobs.courier import Courier
from serve_app.jobs.records import Delivery, NewItem, NewJob
from serve_app.jobs.store import Store
from serve_app.jobs.webhooks import DELAYS_S, SPREAD
from serve_app.settings import WebhookSettings
from tests.unit.fetch.site import NAME, Site, internet, listening, page, tls_for
from tests.unit.jobs.conftest import Clock

SECRET = f"whsec_{'A' * 32}"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    server, _ = tls_for(tmp_path, NAME)
    async with listening(tls=server) as found:
        yield found


def courier(store: Store, clock: Clock, site: Site, folder: Path, name: str = "a") -> Courier:
    trust = ssl.create_default_context(cafile=str(folder / "site.pem"))
    rules = WebhookSettings(secrets=(SecretStr(SECRET),), ports=(site.port,), read_s=2)
    outside, _ = internet(["127.0.0.1"], trust=trust)
    return Courier(store, Poster(rules, outside), rules, name, clock)


async def ended(store: Store, url: str) -> str:
    item = NewItem("a.png", {}, source="a" * 64)
    job, _ = await store.submit(NewJob("t", webhook_url=url), [item])
    await store.cancel(job.id)
    return job.id


async def logged(store: Store, job_id: str) -> Delivery:
    [found] = await store.deliveries(job_id)
    return found


async def test_the_end_of_a_job_is_told_once(
    store: Store, clock: Clock, site: Site, tmp_path: Path
) -> None:
    clock.now = time.time()
    site.pages["/hook"] = page(b"", "204 Thanks")
    job_id = await ended(store, f"https://{NAME}:{site.port}/hook")
    work = courier(store, clock, site, tmp_path)
    assert await work.once() == 1
    assert await work.once() == 0
    [body] = site.bodies
    message = Webhook(SECRET).verify(body, headers_of(site.requests[0]))
    assert (message["type"], message["data"]["job_id"]) == ("job.finished", job_id)
    told = await logged(store, job_id)
    assert (told.status, told.attempts, told.last_status) == ("delivered", 1, 204)


async def test_what_is_not_taken_is_sent_again_for_a_day(
    store: Store, clock: Clock, site: Site, tmp_path: Path
) -> None:
    site.pages["/hook"] = page(b"", "503 Later")
    job_id = await ended(store, f"https://{NAME}:{site.port}/hook")
    work = courier(store, clock, site, tmp_path)
    started = clock.now
    for delay_s in DELAYS_S:
        assert await work.once() == 1
        told = await logged(store, job_id)
        assert told.status == "pending"
        assert told.next_at is not None
        assert abs(told.next_at - clock.now - delay_s) <= SPREAD * delay_s
        clock.now = told.next_at - 0.01
        assert await work.once() == 0
        clock.now = told.next_at
    assert await work.once() == 1
    told = await logged(store, job_id)
    assert (told.status, told.attempts) == ("failed", len(DELAYS_S) + 1)
    assert told.last_error == "the host answered 503"
    assert 18 * 3600 < clock.now - started < 30 * 3600
    names = {headers_of(head)["webhook-id"] for head in site.requests}
    assert len(names) == 1
    site.pages["/hook"] = page(b"")
    await store.redeliver(job_id, told.id)
    await work.once()
    assert (await logged(store, job_id)).status == "delivered"


async def test_one_that_is_gone_is_left_alone(
    store: Store, clock: Clock, site: Site, tmp_path: Path
) -> None:
    site.pages["/hook"] = page(b"", "410 Gone")
    job_id = await ended(store, f"https://{NAME}:{site.port}/hook")
    await courier(store, clock, site, tmp_path).once()
    told = await logged(store, job_id)
    assert (told.status, told.last_status, told.attempts) == ("failed", 410, 1)


@pytest.mark.parametrize("host", ["127.0.0.2", "[::1]", "169.254.169.254"])
async def test_nobody_inside_is_told(
    store: Store, clock: Clock, site: Site, tmp_path: Path, host: str
) -> None:
    job_id = await ended(store, f"https://{host}:{site.port}/")
    await courier(store, clock, site, tmp_path).once()
    told = await logged(store, job_id)
    assert (told.status, told.last_error) == ("pending", "the URL's host has no public address")
    assert site.requests == []


async def test_one_process_sends(store: Store, clock: Clock, site: Site, tmp_path: Path) -> None:
    site.pages["/hook"] = page(b"")
    url = f"https://{NAME}:{site.port}/hook"
    first, second = (courier(store, clock, site, tmp_path, name) for name in "ab")
    await ended(store, url)
    assert await first.once() == 1
    await ended(store, url)
    assert await second.once() == 0
    clock.now += 100
    assert await second.once() == 1


def headers_of(head: str) -> dict[str, str]:
    lines = head.strip().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
