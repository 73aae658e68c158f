"""Server-sent events, as they are read from a response. It refuses to know what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx


class ServerEvent(NamedTuple):
    """One server-sent event."""

    name: str
    data: str
    id: str


def events_of(response: httpx.Response) -> AsyncIterator[ServerEvent]:
    """The server-sent events of a response that is being read; comments and unknown fields are passed over."""
    return _events(_lines(response.aiter_text()))


async def _lines(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """Lines as server-sent events end them; httpx would end them at U+2028 and its like, too."""
    parts: list[str] = []
    async for chunk in chunks:
        first, *rest = chunk.split("\n")
        parts.append(first)
        for part in rest:
            yield "".join(parts).removesuffix("\r")
            parts = [part]


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[ServerEvent]:
    name, data, last = "message", list[str](), ""
    async for line in lines:
        if not line:
            if data:
                yield ServerEvent(name, "\n".join(data), last)
            name, data = "message", []
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last = value
