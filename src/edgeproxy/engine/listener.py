"""A listener as both engines keep it, and the clients that connect to it.

The TLS context is made before the gate thread has the listener, so that the caller of
`Engine.listen` gets the error if a certificate cannot be used. An address gets its plain form here,
once per client.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import Generic, TypeVar

from edgeproxy.engine.contract import Client, ListenerSettings, SocketAddress
from edgeproxy.engine.tls import TlsSettings

Context = TypeVar("Context")

LOCAL = ("127.0.0.1", 0)
"""The address of a client of a Unix socket, and of this end of its connection."""


@dataclass(slots=True)
class Listener(Generic[Context]):
    """One listener. Clients before admission keep it, even after it has been closed.

    Attributes:
        name: As given to `Engine.listen`.
        listening: Its socket, which the engine owns.
        settings: How its clients are treated before the gate is asked.
        tls: The engine's TLS context for its clients; None without TLS.
    """

    name: str
    listening: socket.socket
    settings: ListenerSettings
    tls: Context | None

    @classmethod
    def prepare(
        cls,
        name: str,
        listening: socket.socket,
        settings: ListenerSettings,
        make_context: Callable[[TlsSettings], Context],
    ) -> Listener[Context]:
        """Return a listener. Closes the socket if `make_context` raises TlsError."""
        try:
            tls = make_context(settings.tls) if settings.tls else None
        except BaseException:
            listening.close()
            raise
        return cls(name, listening, settings, tls)

    def renew(self, settings: TlsSettings, tls: Context) -> None:
        """Speak TLS by these settings and their context from the next handshake on."""
        self.settings = replace(self.settings, tls=settings)
        self.tls = tls


def client_at(address: SocketAddress, listener: str, local: SocketAddress | None = None) -> Client:
    """Return a client that has connected from this address to the listener of that name.

    `local` is this host's end of the connection, if the gate is to know it. `_make` takes a third
    less time than `Client` itself.
    """
    ip = address[0]
    if local is not None:
        local = plain(local[0]), local[1]
    return Client._make((plain(ip) if ":" in ip else ip, address[1], listener, None, local, None))


def plain(ip: str) -> str:
    """Return an address of a socket as IPv4 if it is one, and as IPv6 without a scope id if not.

    The form is that of `core/geo/address`. An IPv4 client of a dual-stack listener does not pay for
    `ipaddress`, which takes longer than the rest of the work for a new client.
    """
    ip = ip.partition("%")[0]
    head, _, tail = ip.rpartition(":")
    if "." in tail and head in ("", "::ffff"):  # the system writes IPv4 in IPv6 like this
        return tail
    return str(IPv6Address(ip))
