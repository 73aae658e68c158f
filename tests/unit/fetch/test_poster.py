"""Messages to real servers on loopback, by the rules of fetching."""

from pathlib import Path
from typing import Any

import pytest

from serve_app.fetch.poster import Poster
from serve_app.fetch.settings import Outbound
from serve_app.fetch.target import Refused
from tests.unit.fetch.site import NAME, Site, internet, listening, page, tls_for


def poster(site: Site, *answers: list[str], **given: Any) -> Poster:
    found, _ = internet(*(answers or [["127.0.0.1"]]), trust=given.pop("trust", None))
    rules = {"allow_http": True, "ports": (site.port,), "read_s": 2, **given}
    return Poster(Outbound.model_validate(rules), found)


async def test_a_message_arrives_whole(tmp_path: Path) -> None:
    server, trust = tls_for(tmp_path, NAME)
    async with listening(tls=server) as site:
        site.pages["/hook?a=1"] = page(b"ignored", "202 Accepted")
        work = poster(site, trust=trust, allow_http=False)
        url = f"https://{NAME}:{site.port}/hook?a=1"
        assert await work.post(url, b'{"a":1}', {"webhook-id": "msg_1"}) == 202
    head = site.requests[0].lower()
    assert head.startswith("post /hook?a=1 http/1.1")
    assert f"host: {NAME}:{site.port}" in head
    assert "webhook-id: msg_1" in head
    assert site.bodies == [b'{"a":1}']


@pytest.mark.parametrize("status", [301, 307, 404, 410, 500])
async def test_every_answer_is_told_and_none_followed(status: int) -> None:
    async with listening() as site:
        site.pages["/"] = page(b"", f"{status} Said", Location="/elsewhere")
        assert await poster(site).post(f"http://{NAME}:{site.port}/", b"x", {}) == status
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    "inwards", ["127.0.0.2", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::1"]
)
async def test_nobody_inside_is_spoken_to(inwards: str) -> None:
    async with listening() as site:
        with pytest.raises(Refused, match="no public address"):
            await poster(site, [inwards]).post(f"http://{NAME}:{site.port}/", b"x", {})
        literal = f"[{inwards}]" if ":" in inwards else inwards
        with pytest.raises(Refused):
            await poster(site).post(f"http://{literal}:{site.port}/", b"x", {})
    assert site.requests == []


async def test_a_denied_network_and_a_host_that_is_not_allowed() -> None:
    async with listening() as site:
        url = f"http://{NAME}:{site.port}/"
        with pytest.raises(Refused, match="not among"):
            await poster(site, allowed_hosts=("other.example",)).post(url, b"x", {})
    assert site.requests == []


async def test_one_that_does_not_answer() -> None:
    async with listening() as site:
        site.pages["/"] = [b"HTTP/1.1 ", b"200 OK"]
        site.pause_s = 5
        with pytest.raises(Refused, match=r"within 0\.2 s"):
            await poster(site, total_s=0.2).post(f"http://{NAME}:{site.port}/", b"x", {})
