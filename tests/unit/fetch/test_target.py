"""Spellings of URLs: one plain form comes out, or a refusal."""

from ipaddress import ip_address
from typing import Any

import pytest

from serve_app.fetch.settings import FetchSettings
from serve_app.fetch.target import LONGEST_URL, Refused, Target, target_of


def read(text: str, base: Target | None = None, **settings: Any) -> Target:
    return target_of(text, FetchSettings(enabled=True, **settings), base)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("https://example.org", "https://example.org/"),
        ("HTTPS://EXAMPLE.org.:443/a b".replace(" ", "%20"), "https://example.org/a%20b"),
        ("https://example.org:80/x?y=1&z=%2F#part", "https://example.org:80/x?y=1&z=%2F"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        ("https://1.1.1.1/a", "https://1.1.1.1/a"),
        ("https://[2606:4700:0:0::1111]:80/a", "https://[2606:4700::1111]:80/a"),
        ("https://a_b.example/", "https://a_b.example/"),
    ],
)
def test_one_plain_spelling(text: str, plain: str) -> None:
    assert read(text).url == plain


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",  # decimal
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",  # octal
        "127.1",
        "127.0.1",
        "127.0.0.01",
        "1.2.3.4.5",
        "256.1.1.1",
        "example.1",
        "example.0x",
        "[::1%25eth0]",
        "[fe80::1%eth0]",
        "[v1.a]",
        "[::1",
        "①②⑦.⓪.⓪.①",
        "１２７.0.0.1",  # noqa: RUF001  digits of full width
        "೧.1.1.1",  # digits of another script
        "ｌocalhost",  # noqa: RUF001
        "127.0.0.1\u200b",
        "\u00ad127.0.0.1",
        "%31%32%37.0.0.1",
        "%6cocalhost",
        "127.0.0.1%00",
        "0",
        "0x0",
        "017700000001",
        "127.0.0.0x1",
        "2852039166",
        "1e3.1.1.1",
        "127.0.0.1..",
        "[::ffff:127.1]",
        "[::1].example.org",
        "example.org[::1]",
        "",
        ".",
        "a..b",
        "-a.example",
        "a%2eb",
        "exa mple",
        "ex%00ample",
        "a" * 64,
        "a." * 127 + "aa",
    ],
)
def test_odd_hosts_are_refused(host: str) -> None:
    with pytest.raises(Refused):
        read(f"https://{host}/x.png")


@pytest.mark.parametrize(
    "host",
    ["127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "127.0.0.1.", "127.0.0.1"],  # noqa: RUF001
)
def test_an_address_is_known_as_one(host: str) -> None:
    assert read(f"https://{host}/").literal == ip_address("127.0.0.1")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[::127.0.0.1]", "::7f00:1"),
        ("[::FFFF:127.0.0.1]", "::ffff:7f00:1"),
        ("[64:ff9b::127.0.0.1]", "64:ff9b::7f00:1"),
        ("169.254.169.254.", "169.254.169.254"),
    ],
)
def test_an_address_has_one_spelling(host: str, address: str) -> None:
    target = read(f"HTTPS://{host}#@example.org")
    assert (target.literal, target.host) == (ip_address(address), address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org/x",
        "//example.org/x",
        "/x",
        "http://example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "data:image/png;base64,AAAA",
        "https:example.org",
        "https://user@example.org/",
        "https://user:secret@example.org/",
        "https://example.org:8080/",
        "https://example.org:22/",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://example.org:a/",
        "https://example.org\\@127.0.0.1/",
        "https://[::1]:443@example.org/",
        "https:///example.org/",
        "https://example.org:-1/",
        "https://example.org:4294967739/",
        "https://example.org/\ud800",
        "\ufeffhttps://example.org/",
        "javascript:alert(1)",
        "https://example.org/\r\nX: y",
        " https://example.org/",
        "https://example.org/" + "a" * LONGEST_URL,
    ],
)
def test_what_is_not_fetched(text: str) -> None:
    with pytest.raises(Refused) as caught:
        read(text)
    assert "secret" not in caught.value.reason


def test_settings_widen_and_narrow() -> None:
    assert read("http://example.org/", allow_http=True).port == 80
    assert read("https://example.org:8443/", ports=(8443,)).port == 8443
    with pytest.raises(Refused):
        read("https://example.org/", ports=(8443,))
    hosts = ("cdn.example", "*.example.org")
    for text in ("https://cdn.example/", "https://a.example.org/", "https://A.B.Example.ORG./"):
        assert read(text, allowed_hosts=hosts).scheme == "https"
    for text in ("https://example.org/", "https://badexample.org/", "https://cdn.example.net/"):
        with pytest.raises(Refused):
            read(text, allowed_hosts=hosts)


def test_a_hop_may_be_relative_and_is_judged_like_the_first() -> None:
    base = read("https://example.org/a/b?c")
    assert read("../x y".replace(" ", "%20"), base).url == "https://example.org/x%20y"
    assert read("//other.example/z", base).url == "https://other.example/z"
    for text in ("http://example.org/", "file:///etc/passwd", "https://u@example.org/", "//[::1"):
        with pytest.raises(Refused):
            read(text, base)


def test_the_pinned_url_holds_the_address_and_the_host_header_the_name() -> None:
    target = read("https://example.org:80/a?b")
    assert str(target.at(ip_address("1.2.3.4"))) == "https://1.2.3.4:80/a?b"
    assert str(target.at(ip_address("2606::1"))) == "https://[2606::1]:80/a?b"
    assert (target.authority, read("https://example.org/").authority) == (
        "example.org:80",
        "example.org",
    )
