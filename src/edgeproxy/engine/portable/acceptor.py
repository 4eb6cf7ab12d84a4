"""Accepts clients from listening sockets, and survives every error of `accept`.

Out of descriptors or memory, accepting pauses: clients wait in the kernel's queue instead
of being turned away, and the loop does not spin. A warning is logged once per episode,
which is over when accepting has not paused for `CALM_SECS`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import suppress

from edgeproxy.engine.contract import SocketAddress
from edgeproxy.engine.descriptors import ceiling, room_below
from edgeproxy.engine.listener import LOCAL, Listener, client_at
from edgeproxy.engine.portable.ingress.accepted import Accepted
from edgeproxy.engine.portable.tls_socket import TlsContext
from edgeproxy.engine.tls import TlsSettings
from edgeproxy.log import EventLog

log = EventLog("engine")

ACCEPTS_PER_TURN = 64
ALL_WAITING = 1 << 16
CALM_SECS = 1.0

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """The listening sockets of an engine. Used on the gate thread only.

    Attributes:
        paused: Accepting waits for descriptors.
        ceiling: See `engine.descriptors`.
    """

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.ceiling = ceiling()
        self._listeners: dict[int, Listener[TlsContext]] = {}
        self._told = False
        self._resumed_at = 0.0
        self.paused = False

    def add(self, listener: Listener[TlsContext]) -> None:
        """Accept from this listener; the acceptor closes it."""
        self._listeners[listener.listening.fileno()] = listener
        self._watch(listener.listening.fileno())

    def renew(self, name: str, settings: TlsSettings, tls: TlsContext) -> None:
        """Speak TLS with new clients of a listener with these settings, if it exists."""
        for listener in self._listeners.values():
            if listener.name == name:
                listener.renew(settings, tls)

    def _watch(self, descriptor: int) -> None:
        if not self.paused:
            try:
                self._epoll.register(descriptor, select.EPOLLIN)
            except OSError as error:  # the system has no room for more
                self.pause(os.strerror(error.errno or 0))

    def accept(
        self, descriptor: int, now: float, limit: int = ACCEPTS_PER_TURN
    ) -> Iterator[Accepted]:
        """Accept up to `limit` clients of the listener with this descriptor.

        Each client is accepted only when the caller asks for it. If the dial for the previous one
        found no descriptor, accepting pauses, and the next one stays in the kernel's queue.
        """
        listener = self._listeners.get(descriptor)
        while listener is not None and limit and not self.paused:
            limit -= 1
            try:
                connection, address = listener.listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self.pause(os.strerror(error.errno))
                    return
                continue  # that client is gone already; the next one may be there
            connection.setblocking(False)
            if connection.fileno() >= self.ceiling:
                self.pause(os.strerror(errno.EMFILE))
            yield _accepted(connection, _internet(address), listener, now)

    def pause(self, reason: str) -> None:
        """Stop accepting until `resume`."""
        if self.paused:
            return
        self.paused = True
        for descriptor in self._listeners:
            with suppress(FileNotFoundError):  # it could not be watched
                self._epoll.unregister(descriptor)
        if not self._told:
            self._told = True
            log.warning(
                "accept_paused",
                reason=reason,
                hint="raise the limit of open files (ulimit -n, LimitNOFILE)",
            )

    def resume(self, now: float) -> None:
        """Accept again, if that was paused and there are descriptors now."""
        if self.paused:
            if not room_below(self.ceiling):
                return
            self.paused = False
            self._resumed_at = now
            for descriptor in self._listeners:
                self._watch(descriptor)
        elif self._told and now - self._resumed_at >= CALM_SECS:
            self._told = False
            log.info("accept_resumed")

    def remove(self, name: str, now: float) -> Iterator[Accepted]:
        """Accept the clients that have connected to this listener already, then close it."""
        for descriptor, listener in list(self._listeners.items()):
            if listener.name == name:
                yield from self.accept(descriptor, now, ALL_WAITING)
                self._close(descriptor)

    def accept_rest(self, now: float) -> Iterator[Accepted]:
        """Accept the clients that have connected already, then close the listeners."""
        for descriptor in list(self._listeners):
            yield from self.accept(descriptor, now, ALL_WAITING)
            self._close(descriptor)

    def close(self) -> None:
        """Close the listeners. Idempotent."""
        for descriptor in list(self._listeners):
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        with suppress(FileNotFoundError):  # it is paused, or could not be watched
            self._epoll.unregister(descriptor)  # a child process may hold it open
        self._listeners.pop(descriptor).listening.close()


def _accepted(
    connection: socket.socket, address: SocketAddress, listener: Listener[TlsContext], now: float
) -> Accepted:
    local = _internet(connection.getsockname()) if listener.settings.tells_local else None
    client = client_at(address, listener.name, local)
    return Accepted(connection, address, client, listener, now)


def _internet(address: object) -> SocketAddress:
    """Return an address as a socket gives it; `LOCAL` for a Unix socket, bound to a path or not."""
    return address if isinstance(address, tuple) else LOCAL
