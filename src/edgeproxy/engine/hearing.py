"""Hears what clients say first, where the gate wants to know that before it decides.

What they say is only looked at and stays in the kernel's buffer, so it is carried later like
everything else. The gate is asked again when there is as much as it wanted, or when there will
be no more: the client has ended or is too slow. Nobody waits for a client that says nothing.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass

from edgeproxy.engine.contract import (
    PREAMBLE_BYTES,
    Known,
    More,
    Preamble,
    SocketAddress,
)
from edgeproxy.engine.guard import GuardedGate

_INTEREST = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_LAST = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


@dataclass(slots=True)
class Speaker:
    """A client that is being heard.

    Attributes:
        client, address, listener: Who, from where, to whom.
        accepted_at: Since when it is there.
        deadline: When it has to have said enough.
        bytes_wanted: The gate is not asked again before there are so many.
        has_ended: It will say no more.
    """

    client: socket.socket
    address: SocketAddress
    listener: str
    accepted_at: float
    deadline: float
    bytes_wanted: int = 1
    has_ended: bool = False


class Hearing:
    """All clients that are being heard. Used on the gate thread only."""

    def __init__(
        self,
        epoll: select.epoll,
        gate: GuardedGate,
        known: Callable[[Speaker, Known], object],
        turn_away: Callable[[socket.socket], object],
    ) -> None:
        self._epoll = epoll
        self._gate = gate
        self._known = known
        self._turn_away = turn_away
        self._speakers: dict[int, Speaker] = {}

    def __len__(self) -> int:
        return len(self._speakers)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._speakers

    def add(self, speaker: Speaker) -> None:
        """Hear a client. Raises OSError if the system has no room to watch it."""
        self._epoll.register(speaker.client.fileno(), _INTEREST)
        self._speakers[speaker.client.fileno()] = speaker

    def happened(self, descriptor: int, mask: int, now: float) -> None:
        """A client has said something, or ended."""
        speaker = self._speakers[descriptor]
        speaker.has_ended |= bool(mask & _LAST)
        self._hear(speaker, now)

    def expire(self, now: float) -> None:
        """See who has taken too long."""
        for speaker in [each for each in self._speakers.values() if each.deadline <= now]:
            speaker.has_ended = True
            self._hear(speaker, now)

    def close(self) -> None:
        """Turn everybody away."""
        for speaker in list(self._speakers.values()):
            self._drop(speaker)
            self._turn_away(speaker.client)

    def _hear(self, speaker: Speaker, now: float) -> None:
        try:
            said = speaker.client.recv(PREAMBLE_BYTES, socket.MSG_PEEK)
        except OSError:  # nothing yet, or it has reset
            said = b""
        is_all = speaker.has_ended or len(said) >= PREAMBLE_BYTES
        if len(said) < speaker.bytes_wanted and not is_all:
            return
        preamble = Preamble(said, is_all)
        answer = self._gate.heard(speaker.address, speaker.listener, preamble, now)
        if isinstance(answer, More) and not is_all:
            speaker.bytes_wanted = max(answer.bytes_wanted, len(said) + 1)
            return
        self._drop(speaker)
        if isinstance(answer, Known):
            if answer.skip:
                speaker.client.recv(answer.skip)
            self._known(speaker, answer)
        else:
            self._turn_away(speaker.client)

    def _drop(self, speaker: Speaker) -> None:
        del self._speakers[speaker.client.fileno()]
        self._epoll.unregister(speaker.client.fileno())
