"""Reads the first bytes of clients, where the gate wants them before it decides.

The bytes are peeked at and stay in the kernel's buffer, so the relay carries them later like all
others. The gate is asked again when there are as many as it wanted, or when there will be no more:
the client has ended or is too slow.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress

from edgeproxy.engine.contract import (
    PREAMBLE_BYTES,
    CloseReason,
    Identified,
    NeedMore,
    Preamble,
    Refuse,
)
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.portable.ingress.accepted import Accepted, AcceptedClients, Next

_INTEREST = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_LAST = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Preread(AcceptedClients):
    """All clients in preread. Used on the gate thread only."""

    def __init__(self, epoll: select.epoll, gate: GuardedGate) -> None:
        super().__init__(epoll, _INTEREST, gate, given_up=Next.TURN_AWAY)

    def happened(self, accepted: Accepted, mask: int, now: float) -> Next:
        """A client has sent bytes, or has ended its side."""
        accepted.has_ended |= bool(mask & _LAST)
        return self._peek(accepted, now)

    def expire(self, accepted: Accepted, now: float) -> Next:
        """The time of a client is over: the gate is asked about what it has sent."""
        return self._peek(accepted, now, is_late=True)

    def _peek(self, accepted: Accepted, now: float, *, is_late: bool = False) -> Next:
        try:
            received = accepted.connection.recv(PREAMBLE_BYTES, socket.MSG_PEEK)
        except OSError:  # nothing yet, or it has reset
            received = b""
        is_all = accepted.has_ended or is_late or len(received) >= PREAMBLE_BYTES
        if len(received) < accepted.bytes_wanted and not is_all:
            return Next.WAIT
        preamble = Preamble(received, is_all, accepted.has_ended)
        answer = self._gate.preamble_read(accepted.client, preamble, now)
        if isinstance(answer, NeedMore) and not is_all:
            accepted.bytes_wanted = max(answer.bytes_wanted, len(received) + 1)
            return Next.WAIT
        self.drop(accepted)
        if not isinstance(answer, Identified):
            if not isinstance(answer, Refuse):
                self._gate.client_lost(accepted.client, CloseReason.ABORTED, now)
            return Next.TURN_AWAY
        if answer.skip:
            with suppress(OSError):  # it may have reset since; the relay will see that
                accepted.connection.recv(answer.skip)
        accepted.address = answer.source or accepted.address
        accepted.client = accepted.client.identified(answer)
        return Next.HANDSHAKE
