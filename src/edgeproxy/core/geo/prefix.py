"""Networks, and which of many holds an address.

A lookup costs one dictionary access per distinct prefix length, however many networks there
are; the longest prefix wins. An IPv4-mapped IPv6 network is the IPv4 network in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Generic, TypeAlias, TypeVar

Network: TypeAlias = IPv4Network | IPv6Network
T = TypeVar("T")

REMEMBERED = 8192
"""To read an address takes longer than to find it; so many are remembered."""

PRIVATE_NETWORKS: tuple[Network, ...] = (
    *map(ip_network, ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *map(ip_network, ("::1/128", "fc00::/7")),
)
"""Loopback, private and unique local addresses: RFC 1122, 1918, 4193, 4291."""

_MAPPED_BITS = 96  # ::ffff:0:0/96 holds IPv4


class Prefixes(Generic[T]):
    """What belongs to the longest prefix that holds an address. Immutable."""

    __slots__ = ("_v4", "_v6")

    def __init__(self, of: Mapping[Network, T]) -> None:
        self._v4 = _by_length({on: each for on, each in of.items() if on.version == 4})
        self._v6 = _by_length({on: each for on, each in of.items() if on.version == 6})

    def __len__(self) -> int:
        return sum(len(table) for _, table in (*self._v4, *self._v6))

    def find(self, ip: str) -> T | None:
        """Return what belongs to the longest prefix that holds `ip`, or None.

        `ip` is an address in normal form (`core.geo.address.normalise`). Raises ValueError if it is
        no address and there are prefixes to compare it with.
        """
        tables = self._v6 if ":" in ip else self._v4
        if not tables:
            return None
        number = _number(ip)
        for mask, table in tables:
            found = table.get(number & mask)
            if found is not None:
                return found
        return None


@lru_cache(REMEMBERED)
def _number(ip: str) -> int:
    """Return an address as a number. Raises ValueError."""
    return int(IPv6Address(ip) if ":" in ip else IPv4Address(ip))


def _by_length(of: Mapping[Network, T]) -> tuple[tuple[int, dict[int, T]], ...]:
    """Return pairs of a netmask and a table by network number, longest prefixes first."""
    tables: dict[int, dict[int, T]] = {}
    for network, each in of.items():
        table = tables.setdefault(int(network.netmask), {})
        table[int(network.network_address)] = each
    return tuple(sorted(tables.items(), key=lambda pair: pair[0], reverse=True))


def network(text: str) -> Network | None:
    """Return the network that a prefix or an address means; None if it is neither.

    Raises ValueError for a prefix with host bits; it says which one was probably meant.
    """
    address, slash, length = text.partition("/")
    try:
        if "%" in text or (slash and not length.isdigit()):
            raise ValueError  # ipaddress would take a scope id or a netmask
        found = _unmapped(ip_network(text, strict=False))
        first = _unmapped(ip_network(address))
    except ValueError:
        return None
    if first.network_address != found.network_address:
        raise ValueError(f"{text} has host bits set; probably {found} was meant")
    return found


def _unmapped(given: Network) -> Network:
    """Return the IPv4 network inside an IPv4-mapped IPv6 network; others as they are."""
    if isinstance(given, IPv6Network) and given.prefixlen >= _MAPPED_BITS:
        mapped = given.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, given.prefixlen - _MAPPED_BITS))
    return given
