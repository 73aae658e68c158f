"""Speaks to hosts outside: a name is looked up once, each address judged, the connection made to exactly those.

httpx's transport does the talking, not its client, which would log the URL with whatever secret it holds. The
URL that it is given holds the judged address, so it has nothing to look up; the Host header and TLS, which both
go by the name, are told the name. Nothing is kept between two calls: no connection, no cookie, no header. It
refuses to know what is asked, and what an answer means.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import TypeVar

import httpx

from serve_app import __version__
from serve_app.fetch.addresses import Address, Network, objection
from serve_app.fetch.settings import Outbound
from serve_app.fetch.target import Refused, Target

T = TypeVar("T")

_MOST_ADDRESSES_TRIED = 3
_NOT_PUBLIC = "the URL's host has no public address"
"""Said of a name that does not resolve and of one that resolves inwards: which it is, is not the caller's."""

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


@dataclass(frozen=True, slots=True)
class Said:
    """What is said to a host.

    Attributes:
        method: Such as GET.
        headers: Besides Host, User-Agent and Connection.
        content: The body.
    """

    method: str
    headers: Mapping[str, str]
    content: bytes = b""


async def judged(target: Target, internet: Internet, denied: Sequence[Network]) -> list[Address]:
    """The addresses of a target's host: looked up once, each judged; one that is forbidden forbids all.

    Raises:
        Refused: there is none that may be spoken to.
    """
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


async def speak(
    target: Target,
    addresses: Sequence[Address],
    said: Said,
    read: Callable[[httpx.Response], Awaitable[T]],
    settings: Outbound,
    internet: Internet,
) -> T:
    """Speaks to one target at its addresses, in order until one takes the connection.

    Args:
        target: Whom.
        addresses: Its judged ones.
        said: What.
        read: Takes the answer, whose body has not been read.
        settings: How long to wait.
        internet: What lies outside.

    Raises:
        Refused: nobody took the connection, or no whole answer came.
    """
    for address in addresses:
        try:
            return await _once(target, address, said, read, settings, internet)
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


async def _once(
    target: Target,
    address: Address,
    said: Said,
    read: Callable[[httpx.Response], Awaitable[T]],
    settings: Outbound,
    internet: Internet,
) -> T:
    """One request at one address; a transport of its own, so that nothing is shared with another."""
    waits = httpx.Timeout(settings.read_s, connect=settings.connect_s)
    headers = {
        "Host": target.authority,
        "User-Agent": f"Tessera/{__version__}",
        "Connection": "close",
        **said.headers,
    }
    extensions: dict[str, object] = {"timeout": waits.as_dict()}
    if target.literal is None:
        extensions["sni_hostname"] = target.host
    content = said.content or None
    where = target.at(address)
    request = httpx.Request(
        said.method, where, headers=headers, content=content, extensions=extensions
    )
    async with (
        httpx.AsyncHTTPTransport(verify=internet.trust, trust_env=False) as transport,
        aclosing(await transport.handle_async_request(request)) as answer,
    ):
        return await read(answer)
