"""Hears what clients say first, where the gate wants to know that before it decides.

What they say is only looked at and stays in the kernel's buffer, so it is carried later like
everything else. The gate is asked again when there is as much as it wanted, or when there will
be no more: the client has ended or is too slow. Nobody waits for a client that says nothing.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from edgeproxy.engine.contract import PREAMBLE_BYTES, Known, More, Preamble
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.portable.ingress.accepted import Visitor, Visitors

_INTEREST = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_LAST = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Hearing:
    """All clients that are being heard. Used on the gate thread only."""

    def __init__(
        self,
        epoll: select.epoll,
        gate: GuardedGate,
        known: Callable[[Visitor, Known], object],
        turn_away: Callable[[socket.socket], object],
    ) -> None:
        self._gate = gate
        self._known = known
        self._turn_away = turn_away
        self._visitors = Visitors(epoll, _INTEREST)

    def __len__(self) -> int:
        return len(self._visitors)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._visitors

    def add(self, visitor: Visitor) -> None:
        """Hear a client. Raises OSError if the system has no room to watch it."""
        self._visitors.add(visitor)

    def happened(self, descriptor: int, mask: int, now: float) -> None:
        """A client has said something, or ended."""
        visitor = self._visitors[descriptor]
        visitor.has_ended |= bool(mask & _LAST)
        self._hear(visitor, now)

    def expire(self, now: float) -> None:
        """See who has taken too long."""
        for visitor in self._visitors.late(now):
            visitor.has_ended = True
            self._hear(visitor, now)

    def close(self) -> None:
        """Turn everybody away."""
        for visitor in self._visitors:
            self._visitors.drop(visitor)
            self._turn_away(visitor.client)

    def _hear(self, visitor: Visitor, now: float) -> None:
        try:
            said = visitor.client.recv(PREAMBLE_BYTES, socket.MSG_PEEK)
        except OSError:  # nothing yet, or it has reset
            said = b""
        is_all = visitor.has_ended or len(said) >= PREAMBLE_BYTES
        if len(said) < visitor.bytes_wanted and not is_all:
            return
        preamble = Preamble(said, is_all)
        answer = self._gate.heard(visitor.address, visitor.listener, preamble, now)
        if isinstance(answer, More) and not is_all:
            visitor.bytes_wanted = max(answer.bytes_wanted, len(said) + 1)
            return
        self._visitors.drop(visitor)
        if isinstance(answer, Known):
            if answer.skip:
                visitor.client.recv(answer.skip)
            self._known(visitor, answer)
        else:
            self._turn_away(visitor.client)
