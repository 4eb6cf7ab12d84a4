"""Shakes hands with clients that speak TLS, before the gate is asked for a backend.

A client in its handshake holds no slot of a backend. One that takes too long, does not speak TLS
or shows a certificate that is not trusted is closed before the gate is asked.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from edgeproxy.engine.contract import HandshakeFailure
from edgeproxy.engine.portable.ingress.accepted import Accepted, AcceptedClients
from edgeproxy.engine.portable.tls_socket import TlsSocket
from edgeproxy.engine.tls import TlsInfo

_INTEREST = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Handshakes(AcceptedClients):
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
        super().__init__(epoll, _INTEREST)
        self._handshake_done = handshake_done
        self._handshake_failed = handshake_failed

    def happened(self, descriptor: int) -> None:
        """Something happened to a client."""
        accepted = self[descriptor]
        connection = accepted.connection
        assert isinstance(connection, TlsSocket)
        try:
            is_over = connection.shake_hands()
        except OSError:
            self.drop(accepted)
            self._handshake_failed(accepted, HandshakeFailure.HANDSHAKE_FAILED)
            return
        if is_over:
            self.drop(accepted)
            self._handshake_done(accepted, connection.info())

    def expire(self, now: float) -> None:
        """Fail the handshakes that have taken too long."""
        for accepted in self.late(now):
            self.drop(accepted)
            self._handshake_failed(accepted, HandshakeFailure.HANDSHAKE_TIMEOUT)

    def close(self) -> None:
        """Close all clients."""
        for accepted in self:
            self.drop(accepted)
            accepted.connection.close()
