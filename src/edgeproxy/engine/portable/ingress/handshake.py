"""Shakes hands with clients that speak TLS, before the gate is asked for a backend.

Nobody holds a slot of a backend meanwhile. Whoever takes too long, speaks something else or shows
a certificate that is not trusted is gone before anybody else notices.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from edgeproxy.engine.contract import Departure
from edgeproxy.engine.portable.ingress.accepted import Visitor, Visitors
from edgeproxy.engine.portable.tls_socket import TlsSocket
from edgeproxy.engine.tls import TlsInfo

_INTEREST = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Welcome:
    """All clients in their handshakes. Used on the gate thread only.

    `met` is called for each whose handshake is over, with what was agreed on; `left` for those
    who are to be closed.
    """

    def __init__(
        self,
        epoll: select.epoll,
        met: Callable[[Visitor, TlsInfo], object],
        left: Callable[[Visitor, Departure], object],
    ) -> None:
        self._met = met
        self._left = left
        self._visitors = Visitors(epoll, _INTEREST)

    def __len__(self) -> int:
        return len(self._visitors)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._visitors

    def add(self, visitor: Visitor) -> None:
        """Shake hands with a client. Raises OSError if the system has no room to watch it."""
        self._visitors.add(visitor)

    def happened(self, descriptor: int) -> None:
        """Something happened to a client."""
        visitor = self._visitors[descriptor]
        client = visitor.client
        assert isinstance(client, TlsSocket)
        try:
            is_over = client.shake_hands()
        except OSError:
            self._visitors.drop(visitor)
            self._left(visitor, Departure.HANDSHAKE_FAILED)
            return
        if is_over:
            self._visitors.drop(visitor)
            self._met(visitor, client.info())

    def expire(self, now: float) -> None:
        """See who has taken too long."""
        for visitor in self._visitors.late(now):
            self._visitors.drop(visitor)
            self._left(visitor, Departure.HANDSHAKE_TIMEOUT)

    def close(self) -> None:
        """Close everybody."""
        for visitor in self._visitors:
            self._visitors.drop(visitor)
            visitor.client.close()
