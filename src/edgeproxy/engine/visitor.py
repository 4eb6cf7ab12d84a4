"""A client of the portable engine before the gate is asked for a backend."""

from __future__ import annotations

import socket
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
