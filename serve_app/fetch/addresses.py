"""Which addresses may be connected to: the public internet's, and nothing else.

The lists are our own instead of `ipaddress.is_global`, whose answers differ between Python's releases. It
refuses to know how a host's name became an address.

Source: IANA's registries of special-purpose IPv4 and IPv6 addresses (RFC 6890 and its successors).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_FORBIDDEN_V4 = {
    "0.0.0.0/8": "unspecified",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "carrier-grade NAT",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "a cloud's own services",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "6to4 relays",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",  # with broadcast, 255.255.255.255
}
_FORBIDDEN_V6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::/96": "IPv4-compatible",
    "::ffff:0:0/96": "IPv4-mapped",
    "::ffff:0:0:0/96": "IPv4-translated",
    "64:ff9b::/96": "NAT64",
    "64:ff9b:1::/48": "NAT64",
    "100::/64": "discarded",
    "2001::/32": "Teredo",
    "2001::/23": "protocol assignments",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
    "fc00::/7": "unique local",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}
_FORBIDDEN: dict[Network, str] = {
    ip_network(network): name for network, name in (_FORBIDDEN_V4 | _FORBIDDEN_V6).items()
}
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""The upper half of an interface's identifier that carries an IPv4 address in its lower half: RFC 5214."""
_UNICAST_V6 = IPv6Network("2000::/3")
"""All that is given out to the public of IPv6; everything outside it is reserved, named above or not."""


def objection(address: Address, denied: Iterable[Network] = ()) -> str | None:
    """Says why an address may not be connected to.

    An IPv6 address that carries an IPv4 one is refused whatever it carries: a translator on the way might
    unwrap it, and what is public has an address of its own.

    Args:
        address: What would be connected to.
        denied: Networks that this server may not reach either.

    Returns:
        The kind of address in a few words, for the log; None where it is public.
    """
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "with a zone"
    for network, name in _FORBIDDEN.items():
        if address in network:
            return name
    if isinstance(address, IPv6Address) and address not in _UNICAST_V6:
        return "reserved"
    if isinstance(address, IPv6Address) and int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
        return "ISATAP"
    if any(address in network for network in denied):
        return "denied here"
    return None
