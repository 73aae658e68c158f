"""Fetches one file, hop by hop: judge, look up once, judge, connect to exactly that, read within limits.

httpx's transport does the talking, not its client, which would log the URL with whatever secret it holds. The
URL that it is given holds the judged address, so it has nothing to look up; the Host header and TLS, which both
go by the name, are told the name. It refuses to keep anything between two hops: no connection, no cookie, no
header.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network

import httpx

from serve_app import __version__
from serve_app.errors import Busy, InvalidParameter, TooLarge
from serve_app.fetch.addresses import Address, Network, objection
from serve_app.fetch.settings import FetchSettings
from serve_app.fetch.target import Refused, Target, target_of

FIELD = "image_url"
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_ADDRESSES_TRIED = 3
_LONGEST_NOTE = 300  # what a host sends may stand in it
_RETRY_AFTER_S = 5.0
_NOT_PUBLIC = "the URL's host has no public address"
"""Said of a name that does not resolve and of one that resolves inwards: which it is, is not the caller's."""

log = logging.getLogger(__name__)
# A look-up cannot be ended, only left behind, and whoever owns a name decides how long it takes. So they have
# threads of their own: those that everything else in this process shares cannot be held by them.
_look_ups = ThreadPoolExecutor(8, thread_name_prefix="fetch-look-up")


async def look_up(host: str, port: int) -> list[Address]:
    """Asks the system for a name's addresses, in the order in which they should be tried.

    Raises:
        OSError: the name has none, or nobody answers.
    """
    loop = asyncio.get_running_loop()
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await loop.run_in_executor(_look_ups, ask)
    return list(dict.fromkeys(ip_address(place[0]) for *_, place in found))


@dataclass(frozen=True, slots=True)
class Internet:
    """What lies outside; tests bring their own.

    Attributes:
        look_up: A host's addresses.
        objection: Why an address may not be connected to; None where it may.
        trust: Whose certificates are believed.
    """

    look_up: Callable[[str, int], Awaitable[Sequence[Address]]] = look_up
    objection: Callable[[Address, Sequence[Network]], str | None] = objection
    trust: ssl.SSLContext = field(default_factory=lambda: httpx.create_ssl_context(trust_env=False))


class Fetcher:
    """Fetches files by URL, a bounded number at once; one for each process.

    Args:
        settings: Whether, from where and for how long.
        internet: For tests; None is the real one.
    """

    def __init__(self, settings: FetchSettings, internet: Internet | None = None) -> None:
        self._settings = settings
        self._internet = internet or (Internet() if settings.enabled else None)
        self._denied = [ip_network(text) for text in settings.denied_networks]
        self._running = 0

    async def fetch(self, url: str, limit_bytes: int, request_id: str = "") -> bytes:
        """Fetches one file. Cancelling the call closes its connection.

        Args:
            url: As the caller gave it.
            limit_bytes: The most that the file may weigh.
            request_id: The id to log a refusal by.

        Raises:
            InvalidParameter: switched off here, a URL that may not be fetched, or a host that does not send
                the file; the sentence tells nothing of this server's network or of what was answered.
            TooLarge: more than `limit_bytes`.
            Busy: too many are being fetched.
        """
        settings = self._settings
        if not settings.enabled or self._internet is None:
            raise InvalidParameter(
                f"{FIELD}: fetching is switched off here; send the picture itself", field=FIELD
            )
        if self._running >= settings.at_once:
            raise Busy(f"{self._running} fetches are in progress", retry_after_s=_RETRY_AFTER_S)
        self._running += 1
        try:
            async with asyncio.timeout(settings.total_s):
                return await _follow(url, settings, self._internet, self._denied, limit_bytes)
        except TimeoutError:
            reason = f"the file did not arrive within {settings.total_s:g} s"
            raise self._error(Refused(reason), request_id) from None
        except Refused as refused:
            raise self._error(refused, request_id) from None
        finally:
            self._running -= 1

    def _error(self, refused: Refused, request_id: str) -> InvalidParameter:
        facts = {
            "request_id": request_id,
            "reason": refused.reason,
            "note": refused.note[:_LONGEST_NOTE],
        }
        log.info("fetch_refused", extra={"action": "fetch_refused", **facts})
        return InvalidParameter(f"{FIELD}: {refused}", field=FIELD, allowed=refused.allowed)


async def _follow(
    url: str,
    settings: FetchSettings,
    internet: Internet,
    denied: Sequence[Network],
    limit_bytes: int,
) -> bytes:
    """Goes from hop to hop until one sends the file."""
    target = target_of(url, settings)
    for _ in range(settings.redirects + 1):
        found = await _hop(
            target, await _judged(target, internet, denied), settings, internet, limit_bytes
        )
        if isinstance(found, bytes):
            return found
        target = target_of(found.location, settings, base=target)
    raise Refused("redirected too often", f"at most {settings.redirects} redirects")


async def _judged(target: Target, internet: Internet, denied: Sequence[Network]) -> list[Address]:
    """The addresses of a target's host: looked up once, each judged; one that is forbidden forbids all."""
    if target.literal is not None:
        found: Sequence[Address] = [target.literal]
    else:
        try:
            found = await internet.look_up(target.host, target.port)
        except (
            OSError,
            ValueError,
        ) as error:  # UnicodeError and malformed addresses are ValueErrors
            raise Refused(_NOT_PUBLIC, note=f"{target.host}: {error}") from None
    for address in found:
        if (kind := internet.objection(address, denied)) is not None:
            raise Refused(_NOT_PUBLIC, note=f"{target.host}: {address} is {kind}")
    if not found:
        raise Refused(_NOT_PUBLIC, note=f"{target.host}: no address")
    return list(found[:_MOST_ADDRESSES_TRIED])


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


async def _hop(
    target: Target,
    addresses: Sequence[Address],
    settings: FetchSettings,
    internet: Internet,
    limit_bytes: int,
) -> bytes | _Redirect:
    """Asks one target at its addresses, in order until one takes the connection."""
    for address in addresses:
        try:
            return await _ask(target, address, settings, internet, limit_bytes)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failed: httpx.HTTPError = error
        except httpx.TimeoutException as error:
            raise Refused(f"the host sent nothing for {settings.read_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Refused("the host broke off or does not speak HTTP", note=repr(error)) from error
    secure = target.scheme == "https"
    reason = (
        "no connection to the host, or no valid certificate"
        if secure
        else "no connection to the host"
    )
    raise Refused(reason, note=f"{target.host}: {failed!r}")


async def _ask(
    target: Target,
    address: Address,
    settings: FetchSettings,
    internet: Internet,
    limit_bytes: int,
) -> bytes | _Redirect:
    """One request at one address; a transport of its own, so that nothing is shared with another hop."""
    waits = httpx.Timeout(settings.read_s, connect=settings.connect_s)
    headers = {
        "Host": target.authority,
        "User-Agent": f"Tessera/{__version__}",
        "Accept": "image/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    extensions: dict[str, object] = {"timeout": waits.as_dict()}
    if target.literal is None:
        extensions["sni_hostname"] = target.host
    request = httpx.Request("GET", target.at(address), headers=headers, extensions=extensions)
    async with (
        httpx.AsyncHTTPTransport(verify=internet.trust, trust_env=False) as transport,
        aclosing(await transport.handle_async_request(request)) as answer,
    ):
        if answer.status_code in _REDIRECTS and "Location" in answer.headers:
            return _Redirect(answer.headers["Location"])
        if answer.status_code != httpx.codes.OK:
            raise Refused(f"the host answered {answer.status_code}", "a URL that answers 200")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused("the host sent the file compressed, though it was asked not to")
        return await _read(answer, limit_bytes)


async def _read(answer: httpx.Response, limit_bytes: int) -> bytes:
    """Takes the body as it comes, never more than the limit."""
    declared = answer.headers.get("Content-Length", "")
    body = bytearray()
    if not (declared.isdecimal() and int(declared) > limit_bytes):
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > limit_bytes:
                break
        else:
            return bytes(body)
    raise TooLarge(
        f"{FIELD}: the file is over {limit_bytes} bytes",
        field=FIELD,
        allowed=f"at most {limit_bytes} bytes",
    )
