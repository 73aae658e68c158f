"""Whether, from where and for how long pictures are fetched: a group of `settings`.

It stands here so that the room below `settings` is whole; it refuses to know httpx.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from serve_app.params import Contract


def _network(text: str) -> str:
    ip_network(text)
    return text


class Outbound(Contract):
    """How hosts outside are spoken to, whose addresses strangers give."""

    allow_http: bool = Field(
        False, description="Speak http, too; off, since anyone on the way can read and change it."
    )
    allowed_hosts: tuple[
        Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9_]([a-z0-9_.:-]*[a-z0-9_])?$")], ...
    ] = Field(
        (),
        description="Hosts to speak to, in lower case, `*.` for every name below; empty is any public host.",
    )
    denied_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (),
        description="More networks never to connect to: this site's own on public addresses, its NAT64 prefix.",
    )
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
        (443, 80),
        description="Ports to connect to; others belong to services that are no web server.",
    )
    connect_s: float = Field(
        5, gt=0, description="Seconds to wait for a connection; public hosts take well under one."
    )
    read_s: float = Field(
        5, gt=0, description="Longest silence of a host, s; more is a stalled one."
    )
    total_s: float = Field(
        30, gt=0, description="Seconds for the whole, redirects and names too; 64 MiB at 18 Mbit/s."
    )
    at_once: int = Field(
        8,
        gt=0,
        description="Hosts that one process speaks to at once, so that memory is bounded.",
    )


class FetchSettings(Outbound):
    """Pictures that a request names by `image_url`: docs/image-url.md."""

    enabled: bool = Field(
        False,
        description="Fetch pictures by URL; off, since it lends the server's place in its network to callers.",
    )
    redirects: int = Field(
        3, ge=0, le=10, description="Most redirects to follow; each hop is judged like the first."
    )
