"""One form for client addresses, so that the same client always compares equal."""

from __future__ import annotations

from ipaddress import IPv6Address


def normalise(ip: str) -> str:
    """Return an address in the one form in which it is compared and stored.

    IPv4-mapped IPv6 becomes IPv4; other IPv6 loses its scope id and is written in its
    shortest lower-case form. Text without a colon comes back as it is, unchecked: this runs
    for every connection. Raises ValueError for text with a colon that is no address.
    """
    if ":" not in ip:
        return ip
    address = IPv6Address(ip.partition("%")[0])
    return str(address.ipv4_mapped or address)
