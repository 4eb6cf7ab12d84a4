"""Opens the doors of the proxy: makes its listeners, hands them on, follows their settings.

A listener is known by its address. What cannot be opened while the proxy runs is reported and
leaves everything else as it is; it is tried again at every look.
"""

from __future__ import annotations

import dataclasses
import itertools
import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.engine.contract import Engine, ListenerSettings
from edgeproxy.engine.sockets import open_listener, open_unix_listener, prepare
from edgeproxy.errors import EdgeProxyError
from edgeproxy.gate.preamble import ListenerPolicy, PreambleParser
from edgeproxy.listeners.settings import ListenSettings
from edgeproxy.listeners.spec import SNI, TLS, Listener, UnixAddress
from edgeproxy.log import EventLog
from edgeproxy.values import ListenAddress

if TYPE_CHECKING:
    from edgeproxy.engine.tls import TlsSettings
    from edgeproxy.tls.authorities import Authorities
    from edgeproxy.tls.certificates import Certificates
    from edgeproxy.tls.settings import TlsListenSettings

log = EventLog("doors")

FIRST = "default"
"""What a predecessor that had one listener only calls it."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A listener that is open.

    `name` is what the engine calls it: a new one whenever clients are to be met in another
    manner, so that those who are on the way are met as they came. `listening` is held to hand
    it on; `file` is the one that has been made for it, by device and number.
    """

    name: str
    listener: Listener
    door: ListenerPolicy
    settings: ListenerSettings
    listening: socket.socket
    file: tuple[int, int] | None = None


class Listeners:
    """The listeners of one proxy. Its methods may be called from any thread.

    Attributes:
        certificates: Those of TLS listeners; None without any.
    """

    def __init__(
        self,
        settings: ListenSettings,
        tls_settings: TlsListenSettings,
        engine: Engine,
        preamble_parser: PreambleParser,
        authorities: Authorities | None = None,
    ) -> None:
        """`authorities` are those of backends. Raises EdgeProxyError for bad certificates."""
        self._authorities = authorities
        self.certificates: Certificates | None = None
        self._settings = settings
        self._tls_settings = tls_settings
        self._engine = engine
        self._preamble_parser = preamble_parser
        self._tls: TlsSettings | None = None
        self._open: dict[str, _Open] = {}
        self._failed: dict[str, str] = {}  # what could not be opened, and why
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._is_closed = False
        if settings.speaks_tls:
            self._load_certificates()

    def open(
        self, handed: Mapping[str, socket.socket], given: Iterable[socket.socket]
    ) -> list[Listener]:
        """Open all of them, or take those that a predecessor has handed or systemd has given.

        Returns what is open, with the ports that the system chose. Raises EdgeProxyError.
        """
        wanted, left = _by_name(self._settings.listen), dict(handed)
        spare = {_name_of(each): each for each in given}
        ready = {name: left.pop(name, None) for name in wanted}
        kept = {name: spare.pop(name) for name in wanted if name in spare}
        first = next(iter(wanted))
        if ready[first] is None and first not in kept:
            ready[first] = left.pop(FIRST, None)
            if ready[first] is None and spare:
                kept[first] = spare.pop(next(iter(spare)))
        try:
            for name, listener in wanted.items():
                listening, file = kept.get(name) or ready[name], None
                if listening is None:
                    listening = _opened(listener)
                if name not in kept:  # systemd sees to its own files
                    file = _file_of(listener)
                self._add(name, listener, listening, file)
        except EdgeProxyError:
            self.close(has_successor=bool(handed))
            raise
        for name in spare:
            log.warning("socket_unused", listen=name, hint="no listener has this address")
        for each in (*left.values(), *spare.values()):
            each.close()
        return [_bound(each) for each in self._open.values()]

    def change(self, settings: ListenSettings) -> None:
        """Follow other settings, as far as they are other."""
        with self._lock:
            if self._is_closed:
                return
            self._settings = settings
            wanted = _by_name(settings.listen)
            for name in self._open.keys() - wanted.keys():
                self._close(name)
                log.info("listener_closed", listen=name)
            if networks := settings.proxy_protocol_in:
                # Without networks, the old ones stay: clients in their preread still need them.
                self._engine.call(lambda: self._preamble_parser.trust(networks))
            self._failed = {name: why for name, why in self._failed.items() if name in wanted}
            for name, listener in wanted.items():
                self._follow(name, listener)
            if not settings.speaks_tls:
                self.certificates = self._tls = None

    def refresh(self) -> None:
        """Use certificates that are new, and try again to open what could not be opened."""
        with self._lock:
            if self._is_closed:
                return
            self._renew()
            wanted = _by_name(self._settings.listen)
            for name in list(self._failed):
                self._follow(name, wanted[name])

    def certificates_state(self) -> tuple[int, float] | None:
        """Return how often new certificates were of no use, and when the first one expires."""
        used = self.certificates
        return (used.errors, used.expires_at) if used is not None else None

    def sockets(self) -> dict[str, socket.socket]:
        """Return all of them by name, for a successor."""
        with self._lock:
            return {name: each.listening for name, each in self._open.items()}

    def close(self, *, has_successor: bool) -> None:
        """Let go of all of them. Paths go too, unless somebody else listens there now."""
        with self._lock:
            self._is_closed = True
            for each in self._open.values():
                each.listening.close()
                if not has_successor:
                    _remove_file(each)
            self._open.clear()

    def _load_certificates(self) -> None:
        from edgeproxy.tls.certificates import Certificates

        certificates = Certificates(self._tls_settings)
        self._tls = certificates.load()
        self.certificates = certificates

    def _renew(self) -> None:
        trusted = self._authorities.reload() if self._authorities is not None else None
        if trusted is not None:
            self._engine.trust(trusted)
        renewed = self.certificates.reload() if self.certificates is not None else None
        if renewed is None:
            return
        self._tls = renewed
        for name, each in self._open.items():
            if each.settings.tls is not None:
                self._engine.renew(each.name, renewed)
                settings = dataclasses.replace(each.settings, tls=renewed)
                self._open[name] = dataclasses.replace(each, settings=settings)

    def _manner(self, listener: Listener) -> tuple[ListenerPolicy, ListenerSettings]:
        """Return how the clients of a listener are met. Raises EdgeProxyError."""
        if listener.kind == TLS and self._tls is None:
            self._load_certificates()
        settings = self._settings
        routes_by_sni = listener.kind == SNI
        expects_proxy_header = bool(settings.proxy_protocol_in)
        return ListenerPolicy(listener.app, routes_by_sni, expects_proxy_header), ListenerSettings(
            preamble_secs=settings.preamble_timeout_secs
            if routes_by_sni or expects_proxy_header
            else 0.0,
            tls=self._tls if listener.kind == TLS else None,
            tells_local=settings.sends_proxy_header,
        )

    def _add(
        self,
        name: str,
        listener: Listener,
        listening: socket.socket,
        file: tuple[int, int] | None,
    ) -> None:
        """Accept from a listening socket. Raises EdgeProxyError; nothing has changed then."""
        made, settings = self._manner(listener)
        listening.setblocking(False)
        if listening.family != socket.AF_UNIX:
            prepare(listening)
        known_as = f"{name} {next(self._numbers)}"
        # The doors of before stay: somebody may be on the way who has met them.
        self._engine.call(lambda: self._preamble_parser.add({known_as: made}))
        self._engine.listen(known_as, listening.dup(), settings)
        self._open[name] = _Open(known_as, listener, made, settings, listening, file)

    def _follow(self, name: str, listener: Listener) -> None:
        """Open a listener, or meet its clients in another manner, if that is to be.

        Its queue stays. What cannot be done leaves it as it is, and is told once.
        """
        there = self._open.get(name)
        try:
            if there is None:
                self._open_new(name, listener)
            elif self._manner(listener) == (there.door, there.settings):
                self._failed.pop(name, None)
                return
            else:
                self._add(name, listener, there.listening, there.file)
                self._engine.unlisten(there.name)
        except EdgeProxyError as error:
            if self._failed.get(name) != str(error):
                log.warning("listener_failed", listen=name, reason=error)
            self._failed[name] = str(error)
        else:
            self._failed.pop(name, None)
            bound = _bound(self._open[name])
            log.info("listener_opened", listen=bound.address, mode=mode_of(bound))

    def _open_new(self, name: str, listener: Listener) -> None:
        listening = _opened(listener)
        file = _file_of(listener)
        try:
            self._add(name, listener, listening, file)
        except EdgeProxyError:
            listening.close()
            raise

    def _close(self, name: str) -> None:
        closed = self._open.pop(name)
        self._engine.unlisten(closed.name)
        closed.listening.close()
        _remove_file(closed)


def mode_of(listener: Listener) -> str:
    """Return what a listener does with its clients, as it is configured."""
    return str(listener).rpartition("=")[2]


def _by_name(listeners: Iterable[Listener]) -> dict[str, Listener]:
    """Return listeners by their addresses; further ones of one address are numbered."""
    named: dict[str, Listener] = {}
    for listener in listeners:
        name, number = str(listener.address), 1
        while name in named:
            number += 1
            name = f"{listener.address}#{number}"
        named[name] = listener
    return named


def _opened(listener: Listener) -> socket.socket:
    """Return a listening socket. Raises EdgeProxyError, which names the variable."""
    address = listener.address
    try:
        if isinstance(address, UnixAddress):
            return open_unix_listener(Path(address.path))
        return open_listener(address.host, address.port)
    except OSError as error:
        raise EdgeProxyError(
            f"cannot listen on {address}: {error.strerror}; choose another address with "
            "EDGEPROXY_LISTEN_ADDR, EDGEPROXY_TLS_LISTEN_ADDR or EDGEPROXY_LISTENERS"
        ) from None


def _name_of(listening: socket.socket) -> str:
    """Return the name of a listener that is open already."""
    address = listening.getsockname()
    if isinstance(address, str):
        return str(UnixAddress(address))
    return str(ListenAddress(*address[:2]))


def _file_of(listener: Listener) -> tuple[int, int] | None:
    """Return what tells the file of a Unix socket from any other; None if there is none."""
    if isinstance(listener.address, UnixAddress):
        with suppress(OSError):
            status = Path(listener.address.path).stat()
            return status.st_dev, status.st_ino
    return None


def _remove_file(closed: _Open) -> None:
    """Remove the file of a Unix socket, unless it is somebody else's now."""
    if closed.file is not None and _file_of(closed.listener) == closed.file:
        assert isinstance(closed.listener.address, UnixAddress)
        with suppress(OSError):
            Path(closed.listener.address.path).unlink()


def _bound(each: _Open) -> Listener:
    """Return a listener with the port that it has."""
    address = each.listener.address
    if isinstance(address, ListenAddress):
        address = ListenAddress(address.host, each.listening.getsockname()[1])
    return each.listener._replace(address=address)
