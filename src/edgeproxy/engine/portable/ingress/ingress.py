"""Meets clients of the portable engine before the gate is asked for a backend.

Accepted → heard, if its listener wants a preamble → hands shaken, if it speaks TLS → admitted. Who
is here holds a descriptor and nothing else.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import replace

from edgeproxy.engine.contract import Departure, Known, ListenerSettings
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.portable.ingress.accepted import Visitor
from edgeproxy.engine.portable.ingress.handshake import Welcome
from edgeproxy.engine.portable.ingress.preread import Hearing
from edgeproxy.engine.portable.tls_socket import TlsContext
from edgeproxy.engine.tls import TlsInfo, TlsSettings


class Reception:
    """All clients that the gate has not been asked about. Used on the gate thread only.

    `admit` is called for each who may be asked about, `turn_away` for sockets to be closed with
    decency, `close` for those to be closed at once, `pause` where the system has no room.
    """

    def __init__(
        self,
        epoll: select.epoll,
        gate: GuardedGate,
        admit: Callable[[Visitor], object],
        turn_away: Callable[[socket.socket], object],
        close: Callable[[socket.socket], object],
        pause: Callable[[str], object],
    ) -> None:
        self._gate = gate
        self._admit = admit
        self._turn_away = turn_away
        self._close = close
        self._pause = pause
        self._now = 0.0
        self._settings: dict[str, ListenerSettings] = {}
        self._contexts: dict[str, TlsContext] = {}
        self._hearing = Hearing(epoll, gate, self._known, turn_away)
        self._welcome = Welcome(epoll, self._met, self._left)

    def __len__(self) -> int:
        return len(self._hearing) + len(self._welcome)

    def know(self, listener: str, settings: ListenerSettings, tls: TlsContext | None) -> None:
        """Meet the clients of this listener so from now on."""
        self._settings[listener] = settings
        if tls is not None:
            self._contexts[listener] = tls

    def renew(self, listener: str, settings: TlsSettings, tls: TlsContext) -> None:
        """Speak TLS so with the new clients of a listener from now on, if there is one."""
        if listener in self._settings:
            self._settings[listener] = replace(self._settings[listener], tls=settings)
            self._contexts[listener] = tls

    def tells_local(self, listener: str) -> bool:
        """Return whether the gate wants to know this host's end of its connections."""
        return self._settings[listener].tells_local

    def receive(self, visitor: Visitor, now: float) -> None:
        """A client has connected."""
        self._now = now
        secs = self._settings[visitor.listener].preamble_secs
        if not secs:
            self._meet(visitor)
            return
        visitor.deadline = now + secs
        try:
            self._hearing.add(visitor)
        except OSError as error:
            self._pause(str(error.strerror))
            self._turn_away(visitor.client)

    def happened(self, descriptor: int, mask: int, now: float) -> bool:
        """Something happened to this descriptor; return whether it is of a client in here."""
        self._now = now
        if descriptor in self._hearing:
            self._hearing.happened(descriptor, mask, now)
        elif descriptor in self._welcome:
            self._welcome.happened(descriptor)
        else:
            return False
        return True

    def expire(self, now: float) -> None:
        """See who has taken too long."""
        self._now = now
        self._hearing.expire(now)
        self._welcome.expire(now)

    def close(self) -> None:
        """Close everybody."""
        self._hearing.close()
        self._welcome.close()

    def _known(self, visitor: Visitor, known: Known) -> None:
        """A client has said enough."""
        visitor.address = known.client or visitor.address
        visitor.about = known.about
        self._meet(visitor)

    def _meet(self, visitor: Visitor) -> None:
        """Shake hands with a client whom the gate may be asked about, if that is to be."""
        tls = self._settings[visitor.listener].tls
        if tls is None:
            self._admit(visitor)
            return
        visitor.client = self._contexts[visitor.listener].wrap(visitor.client)
        visitor.deadline = self._now + tls.handshake_secs
        try:
            self._welcome.add(visitor)
        except OSError as error:
            self._pause(str(error.strerror))
            self._close(visitor.client)

    def _met(self, visitor: Visitor, info: TlsInfo) -> None:
        """A handshake is over."""
        visitor.about = info._replace(about=visitor.about)
        self._admit(visitor)

    def _left(self, visitor: Visitor, reason: Departure) -> None:
        """A client is not welcome."""
        self._close(visitor.client)
        self._gate.left(visitor.address, visitor.listener, reason, self._now)
