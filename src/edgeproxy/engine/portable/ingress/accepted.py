"""Clients of the portable engine before the gate is asked for a backend."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from edgeproxy.engine.contract import SocketAddress


@dataclass(slots=True)
class Visitor:
    """One of them.

    Attributes:
        client, address, listener: Who, from where, to whom.
        accepted_at: Since when it is there.
        deadline: When it has to have said enough, or its handshake has to be over.
        bytes_wanted: The gate is not asked again before there are so many.
        has_ended: It will say no more.
        about: What `Gate.opened` is told of it.
    """

    client: socket.socket
    address: SocketAddress
    listener: str
    accepted_at: float
    deadline: float = 0.0
    bytes_wanted: int = 1
    has_ended: bool = False
    about: object = None


class Visitors:
    """Some of them, watched for the same."""

    def __init__(self, epoll: select.epoll, interest: int) -> None:
        self._epoll = epoll
        self._interest = interest
        self._visitors: dict[int, Visitor] = {}

    def __len__(self) -> int:
        return len(self._visitors)

    def __contains__(self, descriptor: object) -> bool:
        return descriptor in self._visitors

    def __getitem__(self, descriptor: int) -> Visitor:
        return self._visitors[descriptor]

    def __iter__(self) -> Iterator[Visitor]:
        """Go over all who are there now; they may leave meanwhile."""
        return iter(list(self._visitors.values()))

    def add(self, visitor: Visitor) -> None:
        """Watch a client. Raises OSError if the system has no room for it."""
        self._epoll.register(visitor.client.fileno(), self._interest)
        self._visitors[visitor.client.fileno()] = visitor

    def drop(self, visitor: Visitor) -> None:
        """Watch a client no more."""
        del self._visitors[visitor.client.fileno()]
        self._epoll.unregister(visitor.client.fileno())

    def late(self, now: float) -> list[Visitor]:
        """Return who has taken too long."""
        return [each for each in self._visitors.values() if each.deadline <= now]
