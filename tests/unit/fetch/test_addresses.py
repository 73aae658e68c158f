"""Every class of address, by an address at each of its ends or in it, and those just outside."""

from ipaddress import ip_address, ip_network

import pytest

from serve_app.fetch.addresses import objection

FORBIDDEN = {
    "unspecified": ["0.0.0.0", "0.255.255.255", "::"],
    "loopback": ["127.0.0.1", "127.255.255.255", "::1"],
    "private": ["10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
    "carrier-grade NAT": ["100.64.0.0", "100.100.100.200", "100.127.255.255"],
    "link-local": ["169.254.169.254", "169.254.0.0", "fe80::1", "febf::1"],
    "a cloud's own services": ["168.63.129.16"],
    "protocol assignments": ["192.0.0.8", "192.0.0.192", "2001:2::1", "2001:20::1", "2001:1ff::1"],
    "documentation": ["192.0.2.1", "198.51.100.7", "203.0.113.255", "2001:db8::1", "3fff::1"],
    "6to4 relays": ["192.88.99.1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1", "200::1", "5f00::1", "e000::1"],
    "IPv4-compatible": ["::127.0.0.1", "::8.8.8.8", "::2"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8"],
    "IPv4-translated": ["::ffff:0:8.8.8.8"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "64:ff9b:1:ffff::1"],
    "discarded": ["100::1"],
    "Teredo": ["2001::1", "2001:0:53aa:64c:0:7fff:80ff:fffe"],
    "6to4": ["2002::1", "2002:7f00:1::1", "2002:808:808::1"],
    "unique local": ["fc00::1", "fd00:ec2::254", "fdff::1"],
    "site-local": ["fec0::1", "feff::1"],
    "ISATAP": ["2606:4700::5efe:7f00:1", "2606:4700::200:5efe:808:808"],
    "with a zone": ["fe80::1%eth0", "2606:4700::1111%1"],
}
PUBLIC = [
    "1.0.0.0",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "3ffe::1",
    "2606:4700::5eff:7f00:1",
]


@pytest.mark.parametrize(
    ("address", "kind"),
    [(address, kind) for kind, listed in FORBIDDEN.items() for address in listed],
)
def test_what_is_not_public_is_refused_by_its_kind(address: str, kind: str) -> None:
    assert objection(ip_address(address)) == kind


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_passes(address: str) -> None:
    assert objection(ip_address(address)) is None


def test_an_operator_denies_more() -> None:
    denied = [ip_network("8.8.0.0/16"), ip_network("2606:4700::/32")]
    assert objection(ip_address("8.8.4.4"), denied) == "denied here"
    assert objection(ip_address("2606:4700::1"), denied) == "denied here"
    assert objection(ip_address("9.9.9.9"), denied) is None
