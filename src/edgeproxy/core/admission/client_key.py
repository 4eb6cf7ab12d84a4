"""Which addresses are one client: the only place that says so.

A client is a prefix: an IPv4 address or an IPv6 /64, which is what one household or machine has,
unless `ClientPrefixes` says otherwise. Bindings, limits and rates all go by its key. Two coarser
prefixes bound those who own many: a site, which is an IPv6 /48, and a block, which is an IPv6 /32
or an IPv4 /16.

A key is the leading groups of an address as text, such as `2001:db8:1:2` or `192.0.2.1`. It is cut
from the text: parsing an address takes longer than everything else that is done with it.
"""

from __future__ import annotations

from dataclasses import dataclass

_SITE_GROUPS = 3
_IPV4_GROUP_BITS, _IPV6_GROUP_BITS = 8, 16


@dataclass(frozen=True, slots=True)
class ClientPrefixes:
    """Which addresses are one client.

    Attributes:
        ipv4: Leading bits of an IPv4 address that one client has, 16 to 32.
        ipv6: Leading bits of an IPv6 address that one client has, 32 to 128.
    """

    ipv4: int = 32
    ipv6: int = 64


DEFAULT = ClientPrefixes()


def key_of(client: str, prefixes: ClientPrefixes = DEFAULT) -> str:
    """Return the key that all addresses of one client share.

    `client` is in normal form (`address.normalise`).
    """
    if ":" in client:
        whole, rest = divmod(prefixes.ipv6, _IPV6_GROUP_BITS)
        needed = whole + bool(rest)
        groups = client.split(":", needed)[:needed]
        if "" in groups or len(groups) < needed:  # zeros are left out there
            groups = _groups_of(client)
        return ":".join(_leading(groups, whole, rest, _IPV6_GROUP_BITS, 16, "x"))
    if prefixes.ipv4 == 32:
        return client
    whole, rest = divmod(prefixes.ipv4, _IPV4_GROUP_BITS)
    return ".".join(_leading(client.split("."), whole, rest, _IPV4_GROUP_BITS, 10, "d"))


def site_of(key: str) -> str:
    """Return the site of a client: its IPv6 /48, or "" if it has none larger than itself."""
    if ":" not in key:
        return ""
    groups = key.split(":", _SITE_GROUPS)
    return ":".join(groups[:_SITE_GROUPS]) if len(groups) > _SITE_GROUPS else ""


def block_of(key: str) -> str:
    """Return the block of a client: its IPv6 /32 or IPv4 /16."""
    separator = ":" if ":" in key else "."
    end = key.find(separator, key.find(separator) + 1)
    return key if end < 0 else key[:end]


def _groups_of(client: str) -> list[str]:
    """Return the eight groups of an IPv6 address."""
    head, gap, tail = client.partition("::")
    groups = head.split(":") if head else []
    if gap:
        last = tail.split(":") if tail else []
        groups += ["0"] * (8 - len(groups) - len(last)) + last
    return groups


def _leading(
    groups: list[str], whole: int, rest: int, group_bits: int, base: int, form: str
) -> list[str]:
    """Return so many whole groups and the first `rest` bits of the next one."""
    leading = groups[:whole]
    if rest:
        spare = group_bits - rest
        leading.append(format(int(groups[whole], base) >> spare << spare, form))
    return leading
