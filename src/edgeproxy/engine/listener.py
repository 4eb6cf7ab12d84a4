"""A listener as both engines keep it: its socket, its settings, and the TLS context of its clients.

The context is made before the gate thread has the listener, so that a certificate of no use is an
error for the caller of `Engine.listen`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from edgeproxy.engine.contract import ListenerSettings
from edgeproxy.engine.tls import TlsSettings

Context = TypeVar("Context")


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
