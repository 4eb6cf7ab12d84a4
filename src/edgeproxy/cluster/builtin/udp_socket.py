"""The UDP socket of membership: what cannot be sent or received is counted, and goes on.

A send never waits. One that fails (no route, a firewall, a full buffer) is a lost datagram, which
the protocol is made for. An IPv6 socket bound to `::` speaks both versions.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Iterator

from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.errors import ConfigError
from edgeproxy.values import ListenAddress

MOST_AT_ONCE = 64
"""So many datagrams are read before others have their turn."""

_MAPPED = "::ffff:"


class UdpSocket:
    """A bound socket.

    Attributes:
        address: What it is bound to.
        failures: How often the kernel refused, by the name of the error.
    """

    def __init__(self, address: ListenAddress) -> None:
        """Raises ConfigError if the address cannot be used."""
        self.failures: Counter[str] = Counter()
        self._is_6 = ":" in address.host
        family = socket.AF_INET6 if self._is_6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if self._is_6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise ConfigError(_cannot_bind(address, error)) from None
        host, port = self._socket.getsockname()[:2]
        self.address = Address(host, port)

    def fileno(self) -> int:
        """Return the descriptor, for an event loop."""
        return self._socket.fileno()

    def send(self, datagram: bytes, to: Address) -> None:
        """Send a datagram, or count why that was not possible."""
        if ":" in to.host and not self._is_6:
            self.failures["EAFNOSUPPORT"] += 1
            return
        host = f"{_MAPPED}{to.host}" if self._is_6 and ":" not in to.host else to.host
        try:
            self._socket.sendto(datagram, (host, to.port))
        except OSError as error:
            self._count(error)

    def received(self, most_bytes: int) -> Iterator[tuple[bytes, Address]]:
        """Yield what has come, some datagrams at a time; a longer one is cut after `most_bytes`."""
        for _ in range(MOST_AT_ONCE):
            try:
                datagram, source = self._socket.recvfrom(most_bytes)
            except BlockingIOError:
                return
            except OSError as error:
                # Such as what a datagram that was sent has met on its way (ICMP).
                self._count(error)
                continue
            yield datagram, Address(source[0].removeprefix(_MAPPED), source[1])

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _count(self, error: OSError) -> None:
        self.failures[errno.errorcode.get(error.errno or 0, "OSError")] += 1


def _cannot_bind(address: ListenAddress, error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "another process uses it; stop that, or choose another port",
        errno.EADDRNOTAVAIL: "this machine does not have the address; allowed are its own, "
        "0.0.0.0 and [::]",
        errno.EACCES: "ports below 1024 need a privilege; choose another port",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return f"EDGEPROXY_REPLICATION_GOSSIP_ADDR: cannot listen on {address} (UDP): {reason}"
