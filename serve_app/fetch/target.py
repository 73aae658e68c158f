"""A URL becomes a target: scheme, host, port and path, each in its one plain spelling, or it is refused.

What one parser takes for a name, another takes for an address, so doubtful spellings are refused rather than
read, and what is sent is built from the parts that were judged. It refuses to look up names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import httpx

from serve_app.fetch.addresses import Address
from serve_app.fetch.settings import Outbound

LONGEST_URL = 8192
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Refused(Exception):
    """Why a URL is not fetched, in words that its caller may read: it names nothing of this network.

    Args:
        reason: Goes on from "image_url: ".
        allowed: What would have been accepted.
        note: What only the log is told.
    """

    def __init__(self, reason: str, allowed: str | None = None, note: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.allowed = allowed
        self.note = note


@dataclass(frozen=True, slots=True)
class Target:
    """Where one hop goes.

    Attributes:
        scheme: http or https.
        host: A name in lower case without a closing dot, or an address without brackets.
        port: The port to connect to.
        path: Path and query, escaped.
        literal: The address where the host is one.
    """

    scheme: str
    host: str
    port: int
    path: str
    literal: Address | None

    @property
    def authority(self) -> str:
        """What the Host header says: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole in its one spelling."""
        return f"{self.scheme}://{self.authority}{self.path}"

    def at(self, address: Address) -> httpx.URL:
        """The same with the host replaced by an address of it."""
        host = f"[{address}]" if address.version == 6 else str(address)
        return httpx.URL(f"{self.scheme}://{host}:{self.port}{self.path}")


def target_of(text: str, settings: Outbound, base: Target | None = None) -> Target:
    """Reads and judges a URL.

    Args:
        text: The URL; a relative one only where there is a base.
        settings: Which schemes, hosts and ports may be asked.
        base: The hop whose answer led here.

    Raises:
        Refused: what is wrong with it.
    """
    if len(text) > LONGEST_URL:
        raise Refused("the URL is too long", f"at most {LONGEST_URL} characters")
    if re.search(r"[\s\\\x00-\x1f\x7f]", text):
        raise Refused("the URL holds a blank, a control character or a backslash")
    try:
        url = httpx.URL(text) if base is None else httpx.URL(base.url).join(text)
    except (httpx.InvalidURL, ValueError):
        raise Refused("not a URL", "https://HOST/PATH") from None
    schemes = ("https", "http") if settings.allow_http else ("https",)
    if url.scheme not in schemes:
        raise Refused(f"the scheme {url.scheme[:20]!r} is not fetched", " or ".join(schemes))
    if url.userinfo:
        raise Refused("a user name or password in the URL is not sent", "a URL without")
    host, literal = _host(url.raw_host.decode("ascii", "replace"))
    if settings.allowed_hosts and not any(_fits(host, rule) for rule in settings.allowed_hosts):
        raise Refused("this host is not among those that are fetched from", note=host)
    port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    if port not in settings.ports:
        listed = ", ".join(map(str, settings.ports))
        raise Refused(f"the port {port} is not fetched from", f"one of {listed}")
    return Target(url.scheme, host, port, url.raw_path.decode("ascii"), literal)


def _host(raw: str) -> tuple[str, Address | None]:
    """Tells a name from an address; what a resolver might read as an address in another spelling is neither."""
    try:
        if ":" in raw:
            if "%" in raw:
                raise Refused("an address with a zone is not fetched from")
            address = IPv6Address(raw)
            return str(address), address
        name = raw.lower().removesuffix(".")
        if not _NUMBER.fullmatch(name.rsplit(".", 1)[-1]):
            if _NAME.fullmatch(name):
                return name, None
            raise Refused("the URL's host is not a name", "https://HOST/PATH")
        return name, IPv4Address(name)
    except AddressValueError:
        raise Refused("the URL's host is not an address in its usual spelling") from None


def _fits(host: str, rule: str) -> bool:
    return host.endswith(rule[1:]) if rule.startswith("*.") else host == rule
