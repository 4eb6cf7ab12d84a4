"""Clients of the portable engine before the gate is asked for a backend."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from edgeproxy.engine.contract import Client, SocketAddress
from edgeproxy.engine.listener import Listener
from edgeproxy.engine.portable.tls_socket import TlsContext


@dataclass(slots=True)
class Accepted:
    """A client that the gate has not been asked about.

    Attributes:
        connection: Its socket.
        address: As the socket gives it, or as the preamble says; for `SessionInfo`.
        client: What the gate knows of it.
        listener: The listener that it has connected to.
        accepted_at: When it was accepted.
        deadline: When its preamble has to be complete, or its handshake done.
        bytes_wanted: The gate is asked again when there are this many bytes.
        has_ended: It will send no more.
    """

    connection: socket.socket
    address: SocketAddress
    client: Client
    listener: Listener[TlsContext]
    accepted_at: float
    deadline: float = 0.0
    bytes_wanted: int = 1
    has_ended: bool = False


class AcceptedClients:
    """The clients in one stage, watched for the same events."""

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
        """Iterate over a copy: clients may be dropped meanwhile."""
        return iter(list(self._clients.values()))

    def add(self, accepted: Accepted) -> None:
        """Watch a client. Raises OSError if the system has no room for it."""
        self._epoll.register(accepted.connection.fileno(), self._interest)
        self._clients[accepted.connection.fileno()] = accepted

    def drop(self, accepted: Accepted) -> None:
        """Watch a client no more."""
        del self._clients[accepted.connection.fileno()]
        self._epoll.unregister(accepted.connection.fileno())

    def late(self, now: float) -> list[Accepted]:
        """Return the clients whose deadline has passed."""
        return [each for each in self._clients.values() if each.deadline <= now]
