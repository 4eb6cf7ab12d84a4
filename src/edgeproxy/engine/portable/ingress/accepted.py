"""Clients of the portable engine before the gate is asked for a backend."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from edgeproxy.engine.contract import SocketAddress


@dataclass(slots=True)
class Accepted:
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


class AcceptedClients:
    """Some of them, watched for the same."""

    def __init__(self, epoll: select.epoll, interest: int) -> None:
        self._epoll = epoll
        self._interest = interest
        self._clients: dict[int, Accepted] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, descriptor: object) -> bool:
        return descriptor in self._clients

    def __getitem__(self, descriptor: int) -> Accepted:
        return self._clients[descriptor]

    def __iter__(self) -> Iterator[Accepted]:
        """Go over all who are there now; they may leave meanwhile."""
        return iter(list(self._clients.values()))

    def add(self, accepted: Accepted) -> None:
        """Watch a client. Raises OSError if the system has no room for it."""
        self._epoll.register(accepted.client.fileno(), self._interest)
        self._clients[accepted.client.fileno()] = accepted

    def drop(self, accepted: Accepted) -> None:
        """Watch a client no more."""
        del self._clients[accepted.client.fileno()]
        self._epoll.unregister(accepted.client.fileno())

    def late(self, now: float) -> list[Accepted]:
        """Return who has taken too long."""
        return [each for each in self._clients.values() if each.deadline <= now]
