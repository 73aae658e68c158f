"""Fetches one file, hop by hop: judge, look up once, judge, connect to exactly that, read within limits.

It refuses to keep anything between two hops, and to know how hosts are spoken to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network

import httpx

from serve_app.errors import Busy, InvalidParameter, TooLarge
from serve_app.fetch.addresses import Network
from serve_app.fetch.settings import FetchSettings
from serve_app.fetch.target import Refused, target_of
from serve_app.fetch.wire import Internet, Said, judged, speak

FIELD = "image_url"
_REDIRECTS = (301, 302, 303, 307, 308)
_LONGEST_NOTE = 300  # what a host sends may stand in it
_RETRY_AFTER_S = 5.0
_GET = Said("GET", {"Accept": "image/*", "Accept-Encoding": "identity"})

log = logging.getLogger(__name__)


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

    async def read(answer: httpx.Response) -> bytes | _Redirect:
        return await _answered(answer, limit_bytes)

    target = target_of(url, settings)
    for _ in range(settings.redirects + 1):
        addresses = await judged(target, internet, denied)
        found = await speak(target, addresses, _GET, read, settings, internet)
        if isinstance(found, bytes):
            return found
        target = target_of(found.location, settings, base=target)
    raise Refused("redirected too often", f"at most {settings.redirects} redirects")


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


async def _answered(answer: httpx.Response, limit_bytes: int) -> bytes | _Redirect:
    """The file, or where it lies instead."""
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
