"""Which IP addresses belong to the public internet, by tables of our own: Python's differ from version to version.

After IANA's registries of special-purpose addresses. In doubt an address is an inner one: no recording comes from a range that is
deprecated, for documentation or for protocols' own use.
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

_INNER_V4 = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a carrier's customers; metadata of some clouds
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's own services
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols; metadata of Oracle's cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved; broadcast
    )
)

_OF_MACHINES = tuple(
    ip_network(text)
    for text in ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.0/24", "fe80::/10", "fd00:ec2::/32")
)
"""Link-local, and where clouds tell a machine about itself, its credentials among that: no recording lies there."""

# All that IANA has given out. Outside of it: loopback, link-local, site-local, unique local, multicast, discard-only, segment
# routing (5f00::/16), local NAT64 (64:ff9b:1::/48), the IPv4-compatible and -translated addresses of old.
_GIVEN_OUT = ip_network("2000::/3")
_INNER_V6 = tuple(
    ip_network(text)
    for text in (
        "2001::/23",  # protocols: Teredo, ORCHID, benchmarks, anycast of relays
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, deprecated: leads to the IPv4 address within, by a relay of whoever likes
        "3fff::/20",  # documentation
    )
)

# These end in the IPv4 address that they lead to.
_NAT64 = ip_network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)
"""What stands before it in any network's ISATAP addresses."""


def is_public(text: str) -> bool | None:
    """Whether traffic to an address, in brackets or not, leaves for the public internet; None: this is no address."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return _v4_is_public(address)
    low = int(address) & 0xFFFFFFFF
    if address.ipv4_mapped is not None or address in _NAT64:
        return _v4_is_public(IPv4Address(low))
    return (
        address in _GIVEN_OUT
        and not any(address in network for network in _INNER_V6)
        and ((int(address) >> 32) & 0xFFFFFFFF not in _ISATAP or _v4_is_public(IPv4Address(low)))
    )


def is_of_machines(text: str) -> bool:
    """Whether an address is link-local, or one where a cloud tells a machine its own credentials: never a media host's."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return False
    if not isinstance(address, IPv4Address) and (address.ipv4_mapped is not None or address in _NAT64):
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    return any(address in network for network in _OF_MACHINES)


def _v4_is_public(address: IPv4Address) -> bool:
    return not any(address in network for network in _INNER_V4)
