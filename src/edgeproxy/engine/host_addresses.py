"""The addresses of this host, as the kernel has them now (rtnetlink(7)).

One dump, without a lock and in well under a millisecond. The addresses of all interfaces are in it,
also secondary ones and those of interfaces that are down. A prefix that is only routed to this host
(`ip route add local`) is not.
"""

from __future__ import annotations

import socket
import struct

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ADDRESS = struct.Struct("=BBBBi")  # ifaddrmsg: family, prefix length, flags, scope, interface
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_NLM_F_DUMP_REQUEST = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_MOST_BYTES = 1 << 16
_TIMEOUT_SECS = 1.0


def host_addresses() -> frozenset[str] | None:
    """Return all addresses of this host in their normal form; None if the kernel does not tell."""
    found: set[str] = set()
    request = _HEADER.pack(
        _HEADER.size + _ADDRESS.size, _RTM_GETADDR, _NLM_F_DUMP_REQUEST, 1, 0
    ) + _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
            kernel.settimeout(_TIMEOUT_SECS)
            kernel.sendto(request, (0, 0))
            while True:
                answer = kernel.recv(_MOST_BYTES)
                while answer:
                    length, kind, *_ = _HEADER.unpack_from(answer)
                    if kind == _NLMSG_DONE:
                        return frozenset(found)
                    if kind == _NLMSG_ERROR:
                        return None
                    if kind == _RTM_NEWADDR:
                        found.add(_address_of(answer[_HEADER.size : length]))
                    answer = answer[_aligned(length) :]
    except (OSError, struct.error, ValueError):  # no netlink here, or not as expected
        return None


def _address_of(message: bytes) -> str:
    """Return the address in one message. Raises ValueError if there is none."""
    family = message[0]
    if family not in _FAMILIES:
        raise ValueError(family)
    given = {}
    rest = message[_ADDRESS.size :]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        given[kind] = rest[_ATTRIBUTE.size : length]
        rest = rest[_aligned(max(length, _ATTRIBUTE.size)) :]
    # On a point-to-point link the other one is the peer's.
    address = given.get(_IFA_LOCAL) or given.get(_IFA_ADDRESS, b"")
    return socket.inet_ntop(family, address)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
