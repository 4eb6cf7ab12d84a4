"""The content of a PROXY protocol header, the same for both versions.

The specification is HAProxy's proxy-protocol.txt. `wire.proxy_v1` and `wire.proxy_v2` decode and
encode the two forms; `wire.proxy_protocol` tells them apart.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeAlias

from edgeproxy.errors import WireError

Address: TypeAlias = IPv4Address | IPv6Address

MAX_PORT = 65535
_MAPPED_PREFIX = 0xFFFF << 32


class Endpoint(NamedTuple):
    """One end of a connection; `ip` is in normal form (`core.geo.address.normalise`)."""

    ip: str
    port: int


class Header(NamedTuple):
    """A PROXY protocol header.

    `source` and `destination` are both set or both None. None means that the header has no
    addresses (LOCAL, UNKNOWN, UNSPEC, Unix sockets, datagrams); then the addresses of the
    connection itself count.

    Attributes:
        version: 1 or 2.
        size: Length of the header in bytes; the client's bytes follow it.
        source: The address the client connected from.
        destination: The address the client connected to.
        is_local: The sender connects for itself, for instance for a health check. Some senders
            also use it for clients without an address.
        server_name: The authority, in normal form (`edgeproxy.host_name`).
        alpn: The application protocol; untrusted bytes.
        unique_id: The sender's id for the connection, up to 128 untrusted bytes.
        tls: What is said of the client's TLS (`proxy_v2.tls_of`), up to 512 untrusted bytes; None
            if it did not speak TLS with the sender.
    """

    version: int
    size: int
    source: Endpoint | None = None
    destination: Endpoint | None = None
    is_local: bool = False
    server_name: str | None = None
    alpn: bytes | None = None
    unique_id: bytes | None = None
    tls: bytes | None = None


def endpoint(address: Address, port: int) -> Endpoint:
    """Return an end in normal form: an IPv4-mapped address as IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return Endpoint(str(mapped or address), port)


def of_one_family(source: Endpoint, destination: Endpoint) -> tuple[Address, Address]:
    """Return the addresses of both ends; IPv4 is mapped into IPv6 if the other end is IPv6.

    A scope id is left out, because no header can carry it. Raises WireError for an invalid
    address or port.
    """
    ends = []
    for end in (source, destination):
        if not 0 <= end.port <= MAX_PORT:
            raise WireError("a port to be sent is not within 0 to 65535")
        try:
            ends.append(ip_address(end.ip.partition("%")[0]))
        except ValueError:
            raise WireError("an address to be sent is neither IPv4 nor IPv6") from None
    if ends[0].version == ends[1].version:
        return ends[0], ends[1]
    return _as_ipv6(ends[0]), _as_ipv6(ends[1])


def _as_ipv6(address: Address) -> IPv6Address:
    return IPv6Address(int(address) | (_MAPPED_PREFIX if address.version == 4 else 0))
