"""Shakes hands with clients that speak TLS, before the gate is asked for a backend.

Nobody holds a slot of a backend meanwhile. Whoever takes too long, speaks something else or shows
a certificate that is not trusted is gone before anybody else notices.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from edgeproxy.engine.contract import HandshakeFailure
from edgeproxy.engine.portable.ingress.accepted import Accepted, AcceptedClients
from edgeproxy.engine.portable.tls_socket import TlsSocket
from edgeproxy.engine.tls import TlsInfo

_INTEREST = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Handshakes:
    """All clients in their handshakes. Used on the gate thread only.

    `handshake_done` is called for each client whose handshake is over, with what was agreed on;
    `handshake_failed` for each client to be closed.
    """

    def __init__(
        self,
        epoll: select.epoll,
        handshake_done: Callable[[Accepted, TlsInfo], object],
        handshake_failed: Callable[[Accepted, HandshakeFailure], object],
    ) -> None:
        self._handshake_done = handshake_done
        self._handshake_failed = handshake_failed
        self._clients = AcceptedClients(epoll, _INTEREST)

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._clients

    def add(self, accepted: Accepted) -> None:
        """Shake hands with a client. Raises OSError if the system has no room to watch it."""
        self._clients.add(accepted)

    def happened(self, descriptor: int) -> None:
        """Something happened to a client."""
        accepted = self._clients[descriptor]
        client = accepted.client
        assert isinstance(client, TlsSocket)
        try:
            is_over = client.shake_hands()
        except OSError:
            self._clients.drop(accepted)
            self._handshake_failed(accepted, HandshakeFailure.HANDSHAKE_FAILED)
            return
        if is_over:
            self._clients.drop(accepted)
            self._handshake_done(accepted, client.info())

    def expire(self, now: float) -> None:
        """See who has taken too long."""
        for accepted in self._clients.late(now):
            self._clients.drop(accepted)
            self._handshake_failed(accepted, HandshakeFailure.HANDSHAKE_TIMEOUT)

    def close(self) -> None:
        """Close everybody."""
        for accepted in self._clients:
            self._clients.drop(accepted)
            accepted.client.close()
