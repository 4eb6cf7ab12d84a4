"""Takes clients of the portable engine from accept to admission.

Accepted → preread, if its listener wants a preamble → handshake, if it speaks TLS → admitted. A
client in here holds a descriptor and nothing else.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from edgeproxy.engine.contract import (
    HandshakeFailure,
    Identified,
)
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.portable.ingress.accepted import Accepted
from edgeproxy.engine.portable.ingress.handshake import Handshakes
from edgeproxy.engine.portable.ingress.preread import Preread
from edgeproxy.engine.tls import TlsInfo


class Ingress:
    """All clients that the gate has not been asked about. Used on the gate thread only.

    `admit` is called for each client that the gate may be asked about, `turn_away` for sockets to
    close without a reset, `close` for those to close at once, `pause` where the system has no room.
    """

    def __init__(
        self,
        epoll: select.epoll,
        gate: GuardedGate,
        admit: Callable[[Accepted], object],
        turn_away: Callable[[socket.socket], object],
        close: Callable[[socket.socket], object],
        pause: Callable[[str], object],
    ) -> None:
        self._gate = gate
        self._admit = admit
        self._turn_away = turn_away
        self._close = close
        self._pause = pause
        self._now = 0.0
        self._preread = Preread(epoll, gate, self._known, turn_away)
        self._handshakes = Handshakes(epoll, self._handshake_done, self._handshake_failed)

    def __len__(self) -> int:
        return len(self._preread) + len(self._handshakes)

    def receive(self, accepted: Accepted, now: float) -> None:
        """A client has connected."""
        self._now = now
        secs = accepted.listener.settings.preamble_secs
        if not secs:
            self._begin_handshake(accepted)
            return
        accepted.deadline = now + secs
        try:
            self._preread.add(accepted)
        except OSError as error:
            self._pause(str(error.strerror))
            self._turn_away(accepted.connection)

    def happened(self, descriptor: int, mask: int, now: float) -> bool:
        """Something happened to this descriptor; return whether it is of a client in here."""
        self._now = now
        if descriptor in self._preread:
            self._preread.happened(descriptor, mask, now)
        elif descriptor in self._handshakes:
            self._handshakes.happened(descriptor)
        else:
            return False
        return True

    def expire(self, now: float) -> None:
        """Act on the clients that have taken too long."""
        self._now = now
        self._preread.expire(now)
        self._handshakes.expire(now)

    def close(self) -> None:
        """Close all clients."""
        self._preread.close()
        self._handshakes.close()

    def _known(self, accepted: Accepted, known: Identified) -> None:
        """The gate has identified a client."""
        accepted.address = known.source or accepted.address
        accepted.client = accepted.client.identified(known)
        self._begin_handshake(accepted)

    def _begin_handshake(self, accepted: Accepted) -> None:
        """Begin the handshake with an identified client, if its listener speaks TLS."""
        context, settings = accepted.listener.tls, accepted.listener.settings.tls
        if context is None or settings is None:
            self._admit(accepted)
            return
        accepted.connection = context.wrap(accepted.connection)
        accepted.deadline = self._now + settings.handshake_secs
        try:
            self._handshakes.add(accepted)
        except OSError as error:
            self._pause(str(error.strerror))
            self._close(accepted.connection)

    def _handshake_done(self, accepted: Accepted, info: TlsInfo) -> None:
        """A handshake is over."""
        accepted.client = accepted.client.over_tls(info)
        self._admit(accepted)

    def _handshake_failed(self, accepted: Accepted, reason: HandshakeFailure) -> None:
        """A handshake has failed: the client is closed."""
        self._close(accepted.connection)
        self._gate.client_lost(accepted.client, reason, self._now)
