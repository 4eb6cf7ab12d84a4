"""Clients of the portable engine before the gate is asked for a backend.

A client passes stages (`preread`, `handshake`). A call of a stage returns what comes next for the
client, and the engine does it. A client that is not to `WAIT` has left its stage.
"""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass
from enum import Enum, auto

from edgeproxy.engine.contract import Client, CloseReason, SocketAddress
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.listener import Listener
from edgeproxy.engine.portable.tls_socket import TlsContext


class Next(Enum):
    """What comes next for a client."""

    WAIT = auto()
    """It stays where it is until something happens to it."""
    HANDSHAKE = auto()
    """The gate has identified it: the handshake begins, where TLS is spoken."""
    ADMIT = auto()
    """The gate may be asked for a backend."""
    TURN_AWAY = auto()
    """It is closed after its unread bytes have been read, to avoid a reset."""
    CLOSE = auto()
    """It is closed at once: its handshake has failed."""


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
    """The clients in one stage, watched for the same events.

    Attributes:
        given_up: What comes next for clients of this stage that are given up.
    """

    def __init__(
        self, epoll: select.epoll, interest: int, gate: GuardedGate, given_up: Next
    ) -> None:
        self._epoll = epoll
        self._gate = gate
        self._interest = interest
        self._clients: dict[int, Accepted] = {}
        self.given_up = given_up

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, descriptor: object) -> bool:
        return descriptor in self._clients

    def __getitem__(self, descriptor: int) -> Accepted:
        return self._clients[descriptor]

    def add(self, accepted: Accepted, deadline: float) -> None:
        """Watch a client. Raises OSError if the system has no room for it."""
        accepted.deadline = deadline
        self._epoll.register(accepted.connection.fileno(), self._interest)
        self._clients[accepted.connection.fileno()] = accepted

    def drop(self, accepted: Accepted) -> None:
        """Stop watching a client."""
        del self._clients[accepted.connection.fileno()]
        self._epoll.unregister(accepted.connection.fileno())

    def excuse(self, secs: float) -> None:
        """Let all clients take longer by the seconds in which this process stood still."""
        for accepted in self._clients.values():
            accepted.deadline += secs

    def late(self, now: float) -> list[Accepted]:
        """Return the clients whose deadline has passed."""
        return [each for each in self._clients.values() if each.deadline <= now]

    def give_up(self, accepted: Accepted, now: float) -> Next:
        """Tell the gate that this client is given up; return what comes next."""
        self._gate.client_lost(accepted.client, CloseReason.ABORTED, now)
        return self.given_up

    def give_up_all(self, now: float) -> list[tuple[Accepted, Next]]:
        """Drop all clients, and return what comes next for each."""
        clients = list(self._clients.values())
        for accepted in clients:
            self.drop(accepted)
        return [(accepted, self.give_up(accepted, now)) for accepted in clients]
