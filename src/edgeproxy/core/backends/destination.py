"""Judges where the address of a backend leads: to this proxy, or to where no stranger may send.

An IPv6 address may stand for an IPv4 one: mapped, compatible, translated (NAT64, SIIT) or tunnelled
(6to4, Teredo, ISATAP). Each address is judged by all that it may stand for (`meanings`). Rows hold
addresses and no names, so nothing is resolved between the judgement and the dial.

Three judgements:
* `Own.what_is_at`: what of this proxy a backend would reach. Such a row is never used.
* `doubt`: why an operator, who may use any other address, is warned of it.
* `registration_fault`: why a caller may not register it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.geo.prefix import Network

Address = IPv4Address | IPv6Address

_ANY = ("0.0.0.0", "::")  # noqa: S104 — compared, not bound

_HOLDERS: tuple[tuple[str, int], ...] = (
    ("::/96", 0),  # compatible (RFC 4291)
    ("::ffff:0:0/96", 0),  # mapped
    ("::ffff:0:0:0/96", 0),  # SIIT (RFC 2765)
    ("64:ff9b::/96", 0),  # NAT64 (RFC 6052)
    ("64:ff9b:1::/48", 0),  # NAT64 of local use (RFC 8215), translated by a prefix of 96 bits
    ("64:ff9b:1::/48", 24),  # by one of 64 bits
    ("2002::/16", 80),  # 6to4
    ("2001::/32", 64),  # Teredo: the address of the server
)
"""Networks whose addresses hold an IPv4 address, and how many bits follow it."""


def _bits(text: str) -> tuple[int, int]:
    network = IPv6Network(text)
    return int(network.network_address), int(network.netmask)


_HELD = tuple((_bits(text), shift) for text, shift in _HOLDERS)
_LOCAL_NAT64 = _bits("64:ff9b:1::/48")
_TEREDO = _bits("2001::/32")
_MAY_HOLD = ("::", "64:ff9b:", "2001::", "2001:0:", "2002:")
"""How those addresses begin in their normal form."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""The middle of an ISATAP address (RFC 5214); its last 32 bits are an IPv4 address."""

_KINDS: tuple[tuple[str, tuple[Network, ...]], ...] = (
    (
        "an address of the cloud's own services, such as metadata",
        tuple(
            map(
                ip_network,
                (
                    "169.254.0.0/16",  # most clouds; all of it is link-local, too
                    "fd00:ec2::/32",  # Amazon
                    "fd20:ce::/32",  # Google
                    "fd00:42::42/128",  # Scaleway
                    "100.100.100.200/32",  # Alibaba
                    "168.63.129.16/32",  # Azure
                    "192.0.0.192/32",  # Oracle
                ),
            )
        ),
    ),
    ("a link-local address", (ip_network("fe80::/10"),)),
    ("a multicast address", (ip_network("224.0.0.0/4"), ip_network("ff00::/8"))),
    ("an unspecified address", (ip_network("0.0.0.0/8"), ip_network("::/128"))),
    ("a reserved or broadcast address", (ip_network("240.0.0.0/4"),)),
)


@dataclass(frozen=True, slots=True)
class Own:
    """What this proxy listens on, and the addresses of its host.

    Attributes:
        places: What listens at each address and port, such as "the API"; an unspecified address
            stands for all of its family, `::` for both.
        hosts: The addresses of this host in their normal form; those of loopback are known.
    """

    places: Mapping[tuple[str, int], str] = field(default_factory=dict)
    hosts: frozenset[str] = frozenset()

    def has(self, ip: str) -> bool:
        """Return whether an address in normal form is one of this host."""
        return ip in self.hosts or ip.startswith("127.") or ip == "::1"

    def what_is_at(self, ip: str, port: int) -> str | None:
        """Return what of this proxy is reached at this address, or None."""
        may_hold = ip.startswith(_MAY_HOLD) or ":5efe:" in ip  # parsing takes long
        for meaning in map(str, meanings(ip)) if may_hold else (ip,):
            wildcards = _ANY if "." in meaning else _ANY[1:]
            for host in (meaning, *(wildcards if self.has(meaning) else ())):
                found = self.places.get((host, port))
                if found is not None:
                    return found
        return None

    def circular(self, backends: Iterable[Backend]) -> Iterator[tuple[Backend, str]]:
        """Yield those of the backends, unless deleted, that lead here, and what of this proxy."""
        ports = {port for _, port in self.places}
        for each in backends:
            if each.port in ports and not each.deleted:  # most are not, and this is quick
                what = self.what_is_at(each.wg_ip, each.port)
                if what is not None:
                    yield each, what


NOTHING = Own()


def meanings(ip: str) -> tuple[Address, ...]:
    """Return an address and every IPv4 address that it may stand for. Raises ValueError."""
    address = ip_address(ip)
    if address.version == 4:
        return (address,)
    number = int(address)
    if number <= 1:  # unspecified and loopback; not IPv4 addresses of zeros
        return (address,)
    found = {number >> shift for (first, mask), shift in _HELD if number & mask == first}
    if number & _LOCAL_NAT64[1] == _LOCAL_NAT64[0]:
        # By a prefix of 48 or 56 bits: eight bits of zero stand in the middle.
        found.add(number >> 64 << 16 | number >> 40 & 0xFFFF)
        found.add(number >> 64 << 24 | number >> 32 & 0xFFFFFF)
        found = {each for each in found if each >> 24 & 0xFF}  # zeros of a longer prefix
    if number & _TEREDO[1] == _TEREDO[0]:
        found.add(~number)  # the address of the client
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        found.add(number)
    return (address, *sorted(IPv4Address(each & 0xFFFFFFFF) for each in found))


def doubt(ip: str) -> str | None:
    """Return what kind of address this is, if a backend there is most likely a mistake."""
    for meaning in meanings(ip):
        for kind, networks in _KINDS:
            if any(meaning.version == each.version and meaning in each for each in networks):
                stands_for = "" if str(meaning) == ip else f" (it stands for {meaning})"
                return f"{kind}{stands_for}"
    return None


def registration_fault(
    ip: str, port: int, caller: str, own: Own, networks: tuple[Network, ...] = ()
) -> str | None:
    """Return why `caller` may not register a backend at this address, or None.

    `networks`, if there are any, are the only ones that backends may register in.
    """
    kind = doubt(ip)
    if kind is not None:
        return f"ip {ip} is {kind}; register an address of the backend itself"
    place = own.what_is_at(ip, port)
    if place is not None:
        return f"ip {ip} with port {port} is {place} of this proxy; register the backend itself"
    loops_back = any(meaning.is_loopback for meaning in meanings(ip))
    if loops_back and not ip_address(caller).is_loopback:
        return (
            f"ip {ip} is loopback, which only a caller on this host's loopback may register; "
            "register an address that this proxy can reach the backend at"
        )
    address = ip_address(ip)
    if networks and not any(address.version == n.version and address in n for n in networks):
        allowed = ", ".join(map(str, networks))
        return f"ip {ip} is in none of EDGEPROXY_API_REGISTER_NETWORKS: {allowed}"
    return None
