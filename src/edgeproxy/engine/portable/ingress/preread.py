"""Reads the first bytes of clients, where the gate wants them before it decides.

The bytes are peeked at and stay in the kernel's buffer, so the relay carries them later like all
others. The gate is asked again when there are as many as it wanted, or when there will be no more:
the client has ended or is too slow.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from edgeproxy.engine.contract import PREAMBLE_BYTES, Identified, NeedMore, Preamble
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.portable.ingress.accepted import Accepted, AcceptedClients

_INTEREST = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_LAST = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Preread(AcceptedClients):
    """All clients in preread. Used on the gate thread only."""

    def __init__(
        self,
        epoll: select.epoll,
        gate: GuardedGate,
        known: Callable[[Accepted, Identified], object],
        turn_away: Callable[[socket.socket], object],
    ) -> None:
        super().__init__(epoll, _INTEREST)
        self._gate = gate
        self._known = known
        self._turn_away = turn_away

    def happened(self, descriptor: int, mask: int, now: float) -> None:
        """A client has sent bytes, or its end."""
        accepted = self[descriptor]
        accepted.has_ended |= bool(mask & _LAST)
        self._peek(accepted, now)

    def expire(self, now: float) -> None:
        """Ask the gate about clients whose time is over."""
        for accepted in self.late(now):
            accepted.has_ended = True
            self._peek(accepted, now)

    def close(self) -> None:
        """Turn all clients away."""
        for accepted in self:
            self.drop(accepted)
            self._turn_away(accepted.connection)

    def _peek(self, accepted: Accepted, now: float) -> None:
        try:
            said = accepted.connection.recv(PREAMBLE_BYTES, socket.MSG_PEEK)
        except OSError:  # nothing yet, or it has reset
            said = b""
        is_all = accepted.has_ended or len(said) >= PREAMBLE_BYTES
        if len(said) < accepted.bytes_wanted and not is_all:
            return
        preamble = Preamble(said, is_all)
        answer = self._gate.preamble_read(accepted.client, preamble, now)
        if isinstance(answer, NeedMore) and not is_all:
            accepted.bytes_wanted = max(answer.bytes_wanted, len(said) + 1)
            return
        self.drop(accepted)
        if isinstance(answer, Identified):
            if answer.skip:
                accepted.connection.recv(answer.skip)
            self._known(accepted, answer)
        else:
            self._turn_away(accepted.connection)
