"""Fetching from real servers on loopback, through look-ups that are told what to answer."""

import asyncio
import gzip
import logging
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from serve_app.errors import Busy, InvalidParameter, TooLarge
from serve_app.fetch import wire
from serve_app.fetch.client import Fetcher
from serve_app.fetch.settings import FetchSettings
from tests.unit.fetch.site import NAME, Site, internet, listening, page, tls_for

BODY = b"\x89PNG" + bytes(range(200))
LIMIT = 1000


def fetcher(site: Site, *answers: list[str], **given: Any) -> Fetcher:
    found, _ = internet(*(answers or [["127.0.0.1"]]), trust=given.pop("trust", None))
    settings = {"enabled": True, "allow_http": True, "ports": (site.port,), "read_s": 2, **given}
    return Fetcher(FetchSettings.model_validate(settings), found)


async def refusal(work: Fetcher, url: str, kind: type[Exception] = InvalidParameter) -> str:
    with pytest.raises(kind) as caught:
        await work.fetch(url, LIMIT)
    assert isinstance(caught.value, InvalidParameter | TooLarge)
    assert caught.value.field == "image_url"
    assert "127.0.0" not in caught.value.detail
    return caught.value.detail


async def test_what_is_sent_names_the_host_and_nothing_of_this_server() -> None:
    async with listening() as site:
        site.pages["/a.png?b=1"] = page(BODY, Set_Cookie="a=b")
        assert await fetcher(site).fetch(f"http://{NAME}:{site.port}/a.png?b=1", LIMIT) == BODY
    lines = site.requests[0].strip().split("\r\n")
    assert lines[0] == "GET /a.png?b=1 HTTP/1.1"
    sent = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert sent["host"] == f"{NAME}:{site.port}"
    assert sent["accept-encoding"] == "identity"
    assert set(sent) == {"host", "user-agent", "accept", "accept-encoding", "connection"}


class TestPinning:
    async def test_the_name_is_looked_up_once_and_the_judged_address_is_used(self) -> None:
        """A name whose second answer leads inwards: there is no second question."""
        async with listening() as site, listening("127.0.0.2", port=site.port) as inside:
            site.pages["/"] = page(BODY)
            found, asked = internet(["127.0.0.1"], ["127.0.0.2"])
            settings = FetchSettings(enabled=True, allow_http=True, ports=(site.port,))
            assert (
                await Fetcher(settings, found).fetch(f"http://{NAME}:{site.port}/", LIMIT) == BODY
            )
        assert asked == [NAME]
        assert (len(site.requests), inside.requests) == (1, [])

    async def test_a_redirect_to_the_same_name_is_judged_anew(self) -> None:
        async with listening() as site, listening("127.0.0.2", port=site.port) as inside:
            site.pages["/"] = page(b"", "302 Found", Location="/again")
            inside.pages["/again"] = page(BODY)
            work = fetcher(site, ["127.0.0.1"], ["127.0.0.2"])
            assert "no public address" in await refusal(work, f"http://{NAME}:{site.port}/")
        assert inside.requests == []

    @pytest.mark.parametrize(
        "answer",
        [
            ["127.0.0.2"],
            ["127.0.0.1", "10.0.0.1"],
            ["10.0.0.1", "127.0.0.1"],
            ["127.0.0.1", "::1"],
            ["::ffff:127.0.0.1"],
            ["64:ff9b::7f00:1"],
            ["fe80::1%lo"],
            [],
        ],
    )
    async def test_one_forbidden_address_forbids_all(self, answer: list[str]) -> None:
        async with listening() as site:
            work = fetcher(site, answer)
            assert "no public address" in await refusal(work, f"http://{NAME}:{site.port}/")
        assert site.requests == []

    async def test_an_address_in_the_url_is_judged_too(self) -> None:
        async with listening() as site:
            for host in ("127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433"):
                await refusal(fetcher(site), f"http://{host}:{site.port}/")
            site.pages["/"] = page(BODY)
            assert await fetcher(site).fetch(f"http://127.0.0.1:{site.port}/", LIMIT) == BODY

    async def test_an_address_that_does_not_answer_yields_to_the_next(self) -> None:
        async with listening() as site:
            site.pages["/"] = page(BODY)
            found, _ = internet(["127.0.0.3", "127.0.0.1"])
            both = wire.Internet(found.look_up, lambda address, denied: None, found.trust)
            settings = FetchSettings(enabled=True, allow_http=True, ports=(site.port,))
            assert await Fetcher(settings, both).fetch(f"http://{NAME}:{site.port}/", LIMIT) == BODY

    async def test_a_name_that_does_not_resolve_reads_like_a_forbidden_one(self) -> None:
        async def nobody(host: str, port: int) -> list[Any]:
            raise OSError("no such name")

        async with listening() as site:
            url = f"http://{NAME}:{site.port}/"
            forbidden = await refusal(fetcher(site, ["10.0.0.1"]), url)
            found, _ = internet(["127.0.0.1"])
            blank = wire.Internet(nobody, found.objection, found.trust)
            settings = FetchSettings(enabled=True, allow_http=True, ports=(site.port,))
            assert await refusal(Fetcher(settings, blank), url) == forbidden

    async def test_no_proxy_of_the_environment_is_asked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with listening() as site, listening() as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "HTTPS_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            site.pages["/"] = page(BODY)
            assert await fetcher(site).fetch(f"http://{NAME}:{site.port}/", LIMIT) == BODY
        assert proxy.requests == []

    async def test_the_systems_look_up_gives_addresses_once_each(self) -> None:
        assert [str(found) for found in await wire.look_up("127.0.0.1", 80)] == ["127.0.0.1"]

    async def test_a_slow_look_up_holds_only_threads_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It cannot be ended; what else this process does in threads goes on beside it."""
        asked: list[str] = []

        def answer(*_: Any, **__: Any) -> list[Any]:
            asked.append(threading.current_thread().name)
            return [(2, 1, 6, "", ("127.0.0.1", 80))]

        monkeypatch.setattr(wire.socket, "getaddrinfo", answer)
        assert [str(found) for found in await wire.look_up("a.example", 80)] == ["127.0.0.1"]
        assert asked[0].startswith("fetch-look-up")


class TestTls:
    async def test_the_certificate_and_sni_go_by_the_name(self, tmp_path: Path) -> None:
        server, trust = tls_for(tmp_path, NAME)
        named: list[str | None] = []
        server.sni_callback = lambda _, name, __: named.append(name)  # type: ignore[assignment, return-value]
        async with listening(tls=server) as site:
            site.pages["/"] = page(BODY)
            work = fetcher(site, trust=trust, allow_http=False)
            assert await work.fetch(f"https://{NAME}:{site.port}/", LIMIT) == BODY
        assert named == [NAME]

    async def test_a_certificate_of_another_name_is_refused(self, tmp_path: Path) -> None:
        server, trust = tls_for(tmp_path, "other.example")
        async with listening(tls=server) as site:
            site.pages["/"] = page(BODY)
            told = await refusal(fetcher(site, trust=trust), f"https://{NAME}:{site.port}/")
        assert "certificate" in told
        assert site.requests == []

    async def test_a_certificate_that_nobody_vouches_for_is_refused(self, tmp_path: Path) -> None:
        server, _ = tls_for(tmp_path, NAME)
        async with listening(tls=server) as site:
            work = fetcher(site, trust=ssl.create_default_context())
            assert "certificate" in await refusal(work, f"https://{NAME}:{site.port}/")

    async def test_https_does_not_lead_to_http(self, tmp_path: Path) -> None:
        server, trust = tls_for(tmp_path, NAME)
        async with listening(tls=server) as site:
            site.pages["/"] = page(b"", "302 Found", Location=f"http://{NAME}:{site.port}/b")
            work = fetcher(site, trust=trust, allow_http=False)
            assert "scheme 'http'" in await refusal(work, f"https://{NAME}:{site.port}/")


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_three_are_followed_and_a_fourth_is_not(self, status: int) -> None:
        async with listening() as site:
            for hop in range(4):
                site.pages[f"/{hop}"] = page(b"", f"{status} Away", Location=f"/{hop + 1}")
            site.pages["/4"] = page(BODY)
            url = f"http://{NAME}:{site.port}"
            assert await fetcher(site).fetch(f"{url}/1", LIMIT) == BODY
            assert "too often" in await refusal(fetcher(site), f"{url}/0")
            assert "too often" in await refusal(fetcher(site, redirects=0), f"{url}/3")

    @pytest.mark.parametrize(
        "place",
        [
            "http://127.0.0.2:{port}/",
            "http://[::1]:{port}/",
            "//169.254.169.254:{port}/latest",
            "http://10.0.0.1:{port}/",
            "http://[64:ff9b::7f00:1]:{port}/",
            "http://[64:ff9b:1::1]:{port}/",
            "http://[2002:7f00:1::1]:{port}/",
            "http://100.64.0.1:{port}/",
            "http://0.0.0.0:{port}/",
            "http://127。0。0。2:{port}/",
            "HTTP://0x7f.1:{port}/",
            "\\\\127.0.0.2:{port}/",
            "gopher://pictures.example:{port}/",
            "data:image/png;base64,AAAA",
            "file:///etc/passwd",
            "http://u:p@pictures.example:{port}/",
            "http://pictures.example:22/",
            "http://2130706433:{port}/",
        ],
    )
    async def test_a_hop_inwards_is_refused(self, place: str) -> None:
        async with listening() as site:
            location = place.format(port=site.port)
            site.pages["/"] = page(b"", "302 Found", Location=location)
            await refusal(fetcher(site), f"http://{NAME}:{site.port}/")
        assert len(site.requests) == 1

    async def test_a_cookie_does_not_travel(self) -> None:
        async with listening() as site:
            site.pages["/"] = page(b"", "302 Found", Location="/b", Set_Cookie="a=b; Path=/")
            site.pages["/b"] = page(BODY)
            await fetcher(site).fetch(f"http://{NAME}:{site.port}/", LIMIT)
        assert "cookie" not in site.requests[1].lower()


class TestLimits:
    @pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
    async def test_the_limit_on_bytes(self, told: bool) -> None:
        length = {} if told else {"Content_Length": ""}
        async with listening() as site:
            site.pages["/"] = page(b"x" * LIMIT, **length)
            site.pages["/over"] = page(b"x" * (LIMIT + 1), **length)
            url = f"http://{NAME}:{site.port}/"
            assert len(await fetcher(site).fetch(url, LIMIT)) == LIMIT
            assert "over 1000 bytes" in await refusal(fetcher(site), f"{url}over", TooLarge)

    async def test_an_endless_file_is_cut_at_the_limit(self) -> None:
        async with listening() as site:
            site.pages["/"] = [page(b"", Content_Length=""), *[b"x" * 10_000] * 10_000]
            await refusal(fetcher(site), f"http://{NAME}:{site.port}/", TooLarge)
            await site.gone.wait()

    async def test_a_slow_drip_ends_with_the_whole_time(self) -> None:
        async with listening() as site:
            site.pages["/"] = [page(b"", Content_Length="500"), *[b"x"] * 500]
            site.pause_s = 0.02
            work = fetcher(site, total_s=0.2)
            assert "within 0.2 s" in await refusal(work, f"http://{NAME}:{site.port}/")
            await site.gone.wait()

    async def test_silence_ends_sooner(self) -> None:
        async with listening() as site:
            site.pages["/"] = [b"HTTP/1.1 200 OK\r\n", b"\r\n"]
            site.pause_s = 5
            work = fetcher(site, read_s=0.1)
            assert "nothing for 0.1 s" in await refusal(work, f"http://{NAME}:{site.port}/")

    async def test_a_compressed_file_is_refused_unopened(self) -> None:
        async with listening() as site:
            site.pages["/"] = page(gzip.compress(bytes(100_000)), Content_Encoding="gzip")
            assert "compressed" in await refusal(fetcher(site), f"http://{NAME}:{site.port}/")

    async def test_one_more_than_at_once_is_busy(self) -> None:
        async with listening() as site:
            site.pages["/"] = [page(b"", Content_Length="9"), b"x"]
            site.pause_s = 5
            work = fetcher(site, at_once=1)
            url = f"http://{NAME}:{site.port}/"
            first = asyncio.create_task(work.fetch(url, LIMIT))
            while not site.requests:
                await asyncio.sleep(0.005)
            with pytest.raises(Busy):
                await work.fetch(url, LIMIT)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            site.pages["/"], site.pause_s = page(BODY), 0
            assert await work.fetch(url, LIMIT) == BODY


class TestFaults:
    @pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 401, 404, 500])
    async def test_other_answers_name_their_status(self, status: int) -> None:
        async with listening() as site:
            site.pages["/"] = page(b"secret", f"{status} Said")
            told = await refusal(fetcher(site), f"http://{NAME}:{site.port}/")
        assert f"answered {status}" in told
        assert "secret" not in told

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH_9\r\n",
            b"",
            page(BODY, Content_Length="500"),
            page(BODY, Content_Length="-5"),
            page(BODY, Content_Length="9" * 5000),
            page(BODY, Content_Length=f"{len(BODY)}, 3"),
            page(BODY, Transfer_Encoding="gzip, chunked"),
            page(b"", "302 Found", Location=""),
            b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        ],
    )
    async def test_what_is_no_answer(self, answer: bytes) -> None:
        async with listening() as site:
            site.pages["/"] = answer
            told = await refusal(fetcher(site), f"http://{NAME}:{site.port}/")
        assert "SSH" not in told

    async def test_nobody_listens(self) -> None:
        async with listening() as site:
            work, url = fetcher(site), f"http://{NAME}:{site.port}/"
        assert "no connection" in await refusal(work, url)

    async def test_off_by_default(self) -> None:
        assert "switched off" in await refusal(Fetcher(FetchSettings()), "https://example.org/")

    async def test_a_refusal_is_logged_with_its_true_reason(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "serve_app.fetch")
        async with listening() as site:
            with pytest.raises(InvalidParameter):
                await fetcher(site, ["10.1.2.3"]).fetch(
                    f"http://{NAME}:{site.port}/?key=1", 9, "id-1"
                )
        (record,) = caplog.records
        assert vars(record)["action"] == "fetch_refused"
        assert vars(record)["request_id"] == "id-1"
        assert vars(record)["note"] == f"{NAME}: 10.1.2.3 is private"
        assert "key" not in str(vars(record))

    async def test_no_library_logs_the_url_either(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        async with listening() as site:
            site.pages["/a?signature=s3cret"] = page(BODY)
            await fetcher(site).fetch(f"http://{NAME}:{site.port}/a?signature=s3cret", LIMIT)
        assert "s3cret" not in caplog.text

    async def test_a_note_for_the_log_is_short(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "serve_app.fetch")
        async with listening() as site:
            site.pages["/"] = b"HTTP/1.1 200 OK\r\n" + b"a " * 9_000 + b": b\r\n\r\n"
            await refusal(fetcher(site), f"http://{NAME}:{site.port}/")
        (record,) = caplog.records
        assert 0 < len(vars(record)["note"]) <= 300
