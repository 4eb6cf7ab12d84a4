"""Shakes hands with clients that speak TLS, before the gate is asked for a backend.

A client in its handshake holds no slot of a backend. One that takes too long, does not speak TLS
or shows a certificate that is not trusted is closed before the gate is asked.
"""

from __future__ import annotations

import select
import ssl

from edgeproxy.engine.contract import HandshakeFailure
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.portable.ingress.accepted import Accepted, AcceptedClients, Next
from edgeproxy.engine.portable.tls_socket import TlsSocket

_INTEREST = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Handshakes(AcceptedClients):
    """All clients in their handshakes. Used on the gate thread only."""

    def __init__(self, epoll: select.epoll, gate: GuardedGate) -> None:
        super().__init__(epoll, _INTEREST, gate, given_up=Next.CLOSE)

    def happened(self, accepted: Accepted, now: float) -> Next:
        """Something happened to a client."""
        connection = accepted.connection
        assert isinstance(connection, TlsSocket)
        try:
            is_over = connection.shake_hands()
        except OSError as error:
            connection.part()
            is_of_tls = isinstance(error, ssl.SSLError)
            failure = HandshakeFailure
            reason = failure.HANDSHAKE_FAILED if is_of_tls else failure.CLIENT_GONE
            return self._fail(accepted, reason, now)
        if not is_over:
            return Next.WAIT
        self.drop(accepted)
        accepted.client = accepted.client.over_tls(connection.info())
        return Next.ADMIT

    def expire(self, accepted: Accepted, now: float) -> Next:
        """The handshake of a client has taken too long."""
        return self._fail(accepted, HandshakeFailure.HANDSHAKE_TIMEOUT, now)

    def _fail(self, accepted: Accepted, reason: HandshakeFailure, now: float) -> Next:
        self.drop(accepted)
        self._gate.client_lost(accepted.client, reason, now)
        return Next.CLOSE
