"""Longest-prefix match: finds which of many networks holds an address.

A lookup costs one dictionary access per distinct prefix length, however many networks there
are. An IPv4-mapped IPv6 network counts as the IPv4 network in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Generic, TypeAlias, TypeVar

Network: TypeAlias = IPv4Network | IPv6Network
T = TypeVar("T")

CACHED_ADDRESSES = 8192
"""Parsed addresses to cache: parsing one takes longer than finding it."""

PRIVATE_NETWORKS: tuple[Network, ...] = (
    *map(ip_network, ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *map(ip_network, ("::1/128", "fc00::/7")),
)
"""Loopback, private and unique local addresses: RFC 1122, 1918, 4193, 4291."""

_MAPPED_BITS = 96  # ::ffff:0:0/96 holds IPv4


class Prefixes(Generic[T]):
    """A map from networks to values, searched by address. Immutable."""

    __slots__ = ("_v4", "_v6")

    def __init__(self, values: Mapping[Network, T]) -> None:
        self._v4 = _by_length({net: value for net, value in values.items() if net.version == 4})
        self._v6 = _by_length({net: value for net, value in values.items() if net.version == 6})

    def __len__(self) -> int:
        return sum(len(table) for _, table in (*self._v4, *self._v6))

    def find(self, ip: str) -> T | None:
        """Return the value of the longest prefix that holds `ip`, or None.

        `ip` is an address in normal form (`core.geo.address.normalise`). Raises ValueError if it is
        not an address, unless there are no prefixes to compare it with.
        """
        tables = self._v6 if ":" in ip else self._v4
        if not tables:
            return None
        number = _number(ip)
        for mask, table in tables:
            value = table.get(number & mask)
            if value is not None:
                return value
        return None


@lru_cache(CACHED_ADDRESSES)
def _number(ip: str) -> int:
    """Return an address as a number. Raises ValueError."""
    return int(IPv6Address(ip) if ":" in ip else IPv4Address(ip))


def _by_length(values: Mapping[Network, T]) -> tuple[tuple[int, dict[int, T]], ...]:
    """Return pairs of a netmask and a table by network number, longest prefixes first."""
    tables: dict[int, dict[int, T]] = {}
    for network, value in values.items():
        table = tables.setdefault(int(network.netmask), {})
        table[int(network.network_address)] = value
    return tuple(sorted(tables.items(), key=lambda pair: pair[0], reverse=True))


def network(text: str) -> Network | None:
    """Parse a prefix or an address as a network; None if the text is neither.

    Raises ValueError for a prefix with host bits; the message suggests the network without them.
    """
    address, slash, length = text.partition("/")
    try:
        if "%" in text or (slash and not length.isdigit()):
            raise ValueError  # ipaddress would take a scope id or a netmask
        parsed = _unmapped(ip_network(text, strict=False))
        first = _unmapped(ip_network(address))
    except ValueError:
        return None
    if first.network_address != parsed.network_address:
        raise ValueError(f"{text} has host bits set; probably {parsed} was meant")
    return parsed


def _unmapped(net: Network) -> Network:
    """Return the IPv4 network inside an IPv4-mapped IPv6 network; others as they are."""
    if isinstance(net, IPv6Network) and net.prefixlen >= _MAPPED_BITS:
        mapped = net.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, net.prefixlen - _MAPPED_BITS))
    return net
