"""Which addresses are public: the same answers whatever the Python."""

from __future__ import annotations

import pytest

from archiver.archive.addresses import is_public
from archiver.config import is_loopback

INNER = [
    "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1", "127.255.255.255",
    "168.63.129.16", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255",
    # loopback, unspecified, IPv4-compatible, -mapped, -translated, and what else there is below ::/8
    "::", "::1", "::8.8.8.8", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:0:8.8.8.8", "::fffe:8.8.8.8", "1::1", "ff::1",
    # NAT64 to an inner address; local NAT64
    "64:ff9b::a00:1", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:0:0:0:1::", "64:ff9b:1::1",
    "64:ff9b:1:ffff::8.8.8.8", "64:ff9b:2::1",
    # discard-only, dummy, protocols, Teredo, benchmarks, AMT, AS112, ORCHID, DETs, documentation, 6to4, segment routing
    "100::1", "100:0:0:1::1", "2001::1", "2001:0:4136:e378:8000:63bf:f7f7:f7f7", "2001:1::1", "2001:1::3", "2001:2::1",
    "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1", "2001:1ff:ffff::1", "2001:db8::1",
    "2001:db8:ffff:ffff::", "2002::1", "2002:808:808::1", "2002:a00:1::1", "3fff::1", "3fff:fff:ffff::", "5f00::1",
    # not given out, unique local, link-local, site-local, multicast
    "4000::1", "8000::1", "c000::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::1%eth0", "febf::1",
    "fec0::1", "feff::1", "ff02::1", "ff0e::1",
    # ISATAP to an inner address
    "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:127.0.0.1", "2a00:1450:4001:800:200:5efe:a9fe:a9fe",
]  # fmt: skip

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "168.63.129.15", "169.253.255.255", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.88.98.1",
    "192.167.255.255", "198.17.255.255", "198.20.0.0", "223.255.255.255",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2001:200::1", "2001:4860:4860::8888", "2001:db7::1", "2001:db9::1", "2003::1",
    "2606:4700::1111", "2a00:1450:4001:800::200e", "3ffe::1", "3fff:1000::1", "2606:4700::5efe:8.8.8.8", "[2606:4700::1111]",
]  # fmt: skip


def test_every_range_of_a_special_purpose_is_an_inner_one() -> None:
    assert [text for text in INNER if is_public(text) is not False] == []
    assert [text for text in INNER if is_public(f"[{text}]") is not False] == []


def test_what_is_beside_them_is_public() -> None:
    assert [text for text in PUBLIC if is_public(text) is not True] == []


@pytest.mark.parametrize("text", ["", "localhost", "8.8.8", "010.0.0.1", "1.1.1.1.", "0x7f.1", "2130706433", "::g", "[]"])
def test_what_is_no_address_is_neither(text: str) -> None:
    assert is_public(text) is None


def test_what_names_this_machine_does_so_on_every_python() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "[::1]", "::ffff:127.0.0.1", "[::ffff:7f00:1]", "LOCALHOST"):
        assert is_loopback(host), host
    for host in ("::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "0.0.0.0", "localhost.example"):
        assert not is_loopback(host), host
