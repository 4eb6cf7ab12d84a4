"""Shakes hands with clients that speak TLS, before the gate is asked for a backend.

Nobody holds a slot of a backend meanwhile. Whoever takes too long, speaks something else or shows
a certificate that is not trusted is gone before anybody else notices.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass

from edgeproxy.engine.contract import Departure, SocketAddress
from edgeproxy.engine.tls_socket import TlsSocket

_INTEREST = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


@dataclass(slots=True)
class Guest:
    """A client in its handshake.

    Attributes:
        client, address, listener: Who, from where, to whom.
        accepted_at: Since when it is there.
        deadline: When the handshake has to be over.
    """

    client: TlsSocket
    address: SocketAddress
    listener: str
    accepted_at: float
    deadline: float


class Welcome:
    """All clients in their handshakes. Used on the gate thread only.

    `met` is called for each whose handshake is over; `left` for those who are to be closed.
    """

    def __init__(
        self,
        epoll: select.epoll,
        met: Callable[[Guest], object],
        left: Callable[[Guest, Departure], object],
    ) -> None:
        self._epoll = epoll
        self._met = met
        self._left = left
        self._guests: dict[int, Guest] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._guests

    def add(self, guest: Guest) -> None:
        """Shake hands with a client. Raises OSError if the system has no room to watch it."""
        self._epoll.register(guest.client.fileno(), _INTEREST)
        self._guests[guest.client.fileno()] = guest

    def happened(self, descriptor: int) -> None:
        """Something happened to a client."""
        guest = self._guests[descriptor]
        try:
            is_over = guest.client.shake_hands()
        except OSError:
            self._drop(guest)
            self._left(guest, Departure.HANDSHAKE_FAILED)
            return
        if is_over:
            self._drop(guest)
            self._met(guest)

    def expire(self, now: float) -> None:
        """See who has taken too long."""
        for guest in [each for each in self._guests.values() if each.deadline <= now]:
            self._drop(guest)
            self._left(guest, Departure.HANDSHAKE_TIMEOUT)

    def close(self) -> None:
        """Close everybody."""
        for guest in list(self._guests.values()):
            self._drop(guest)
            guest.client.close()

    def _drop(self, guest: Guest) -> None:
        del self._guests[guest.client.fileno()]
        self._epoll.unregister(guest.client.fileno())
