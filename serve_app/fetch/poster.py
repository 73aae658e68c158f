"""Sends one message to an address that a stranger gave, and says what was answered.

A redirect is an answer like any other: what is signed goes where its receiver said, and nowhere else. It
refuses to know what messages say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_network

import httpx

from serve_app.fetch.settings import Outbound
from serve_app.fetch.target import Refused, target_of
from serve_app.fetch.wire import Internet, Said, judged, speak


class Poster:
    """Posts messages.

    Args:
        settings: To whom and for how long.
        internet: For tests; None is the real one.
    """

    def __init__(self, settings: Outbound, internet: Internet | None = None) -> None:
        self._settings = settings
        self._internet = internet or Internet()
        self._denied = [ip_network(text) for text in settings.denied_networks]

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> int:
        """Posts a body; gives the answer's status, whatever it is.

        Raises:
            Refused: the URL may not be spoken to, or no answer came.
        """
        settings, internet = self._settings, self._internet
        try:
            async with asyncio.timeout(settings.total_s):
                target = target_of(url, settings)
                addresses = await judged(target, internet, self._denied)
                said = Said("POST", headers, content)
                return await speak(target, addresses, said, _status, settings, internet)
        except TimeoutError:
            raise Refused(f"no answer within {settings.total_s:g} s") from None


async def _status(answer: httpx.Response) -> int:
    return answer.status_code
