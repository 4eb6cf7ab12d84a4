"""Opens the doors of the proxy: makes its listeners, hands them on, follows their settings.

A listener is known by its address. What cannot be opened while the proxy runs is reported and
leaves everything else as it is; it is tried again with the next change.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy import door
from edgeproxy.config import Config
from edgeproxy.core.server_names import ServerNames
from edgeproxy.door import Listener, UnixAddress
from edgeproxy.engine.contract import Engine, ListenerSettings
from edgeproxy.engine.doorman import Door, Doorman
from edgeproxy.engine.listener import open_listener, open_unix_listener, prepare
from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog
from edgeproxy.value import ListenAddress

if TYPE_CHECKING:
    from edgeproxy.control.certificates import Certificates
    from edgeproxy.tls import TlsSettings

log = EventLog("doors")

FIRST = "default"
"""What a predecessor that had one listener only calls it."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A listener that is open; `listening` is held to hand it on."""

    listener: Listener
    door: Door
    settings: ListenerSettings
    listening: socket.socket


class Doors:
    """The listeners of one proxy.

    Attributes:
        certificates: Those of TLS listeners; None without any.
    """

    def __init__(self, config: Config, engine: Engine, doorman: Doorman) -> None:
        """Raises EdgeProxyError for certificates that cannot be used."""
        self.certificates: Certificates | None = None
        self._config = config
        self._engine = engine
        self._doorman = doorman
        self._tls: TlsSettings | None = None
        self._open: dict[str, _Open] = {}
        self._routes: dict[str, str] = {}
        self._load_certificates(config)

    def open(
        self, handed: Mapping[str, socket.socket], given: Iterable[socket.socket]
    ) -> list[Listener]:
        """Open all of them, or take those that a predecessor or systemd has opened.

        Returns what is open, with the ports that the system chose. Raises EdgeProxyError.
        """
        ready, left = dict(handed), {_name_of(each): each for each in given}
        for number, listener in enumerate(_wanted(self._config)):
            name = str(listener.address)
            listening = ready.pop(name, None) or left.pop(name, None)
            if listening is None and number == 0:
                listening = ready.pop(FIRST, None) or _first_of(left)
            self._add(listener, listening)
        for unwanted in (*ready.values(), *left.values()):
            unwanted.close()
        return [_bound(each) for each in self._open.values()]

    def change(self, config: Config) -> None:
        """Follow other settings, as far as they are other."""
        if config.tls != self._config.tls or (self._tls is None and needs_tls(config)):
            try:
                self._load_certificates(config)
            except EdgeProxyError as error:
                log.warning("certificates_bad", reason=error)
                return
        self._config = config
        wanted = {str(each.address): each for each in _wanted(config)}
        for name in self._open.keys() - wanted.keys():
            self._close(name)
            log.info("listener_closed", listen=name)
        self._engine.call(lambda: self._doorman.trust(config.door.proxy_in))
        for name, listener in wanted.items():
            there = self._open.get(name)
            if there is None or self._manner(listener) != (there.door, there.settings):
                self._replace(name, listener)
        self.route(self._routes)

    def route(self, routes: Mapping[str, str]) -> None:
        """Lead the clients of server names to these apps; the configuration comes first."""
        self._routes = dict(routes)
        names = ServerNames({**routes, **dict(self._config.door.routes)})

        def use() -> None:
            self._doorman.names = names

        self._engine.call(use)

    def scopes(self) -> set[str]:
        """Return what clients can be led to."""
        wanted = _wanted(self._config)
        found = {each.app for each in wanted if each.kind != door.SNI}
        if any(each.kind == door.SNI for each in wanted):
            found |= {*self._routes.values(), *(each.app for each in self._config.door.routes)}
        return found

    def renew(self) -> None:
        """Look at the certificates, and use those that are new."""
        if self.certificates is None:
            return
        renewed = self.certificates.reload()
        if renewed is not None:
            self._tls = renewed
            for name, each in list(self._open.items()):
                if each.settings.tls is not None:
                    self._engine.renew(name, renewed)
                    self._open[name] = _Open(
                        each.listener, each.door, self._manner(each.listener)[1], each.listening
                    )

    def certificates_state(self) -> tuple[int, float] | None:
        """Return how often new certificates were of no use, and when the first one expires."""
        used = self.certificates
        return (used.errors, used.expires_at) if used is not None else None

    def sockets(self) -> dict[str, socket.socket]:
        """Return all of them by name, for a successor."""
        return {name: each.listening for name, each in self._open.items()}

    def close(self, *, has_successor: bool) -> None:
        """Let go of all of them. Paths go too, unless somebody else listens there now."""
        for each in self._open.values():
            each.listening.close()
            if isinstance(each.listener.address, UnixAddress) and not has_successor:
                Path(each.listener.address.path).unlink(missing_ok=True)
        self._open.clear()

    def _load_certificates(self, config: Config) -> None:
        if not needs_tls(config):
            self.certificates = self._tls = None
            return
        from edgeproxy.control.certificates import Certificates

        certificates = Certificates(config.tls)
        self._tls = certificates.load()
        self.certificates = certificates

    def _manner(self, listener: Listener) -> tuple[Door, ListenerSettings]:
        """Return how the clients of a listener are met."""
        settings = self._config.door
        by_name, announced = listener.kind == door.SNI, bool(settings.proxy_in)
        return Door(listener.app, by_name, announced), ListenerSettings(
            preamble_secs=settings.preamble_timeout_secs if by_name or announced else 0.0,
            tls=self._tls if listener.kind == door.TLS else None,
            tells_local=any(each.version != "off" for each in settings.proxy_out),
        )

    def _add(self, listener: Listener, listening: socket.socket | None) -> None:
        """Accept from a listener, opened already or not. Raises EdgeProxyError."""
        name = str(listener.address)
        made, settings = self._manner(listener)
        if listening is None:
            listening = _opened(listener)
        listening.setblocking(False)
        if isinstance(listener.address, ListenAddress):
            prepare(listening)
        self._open[name] = _Open(listener, made, settings, listening)
        doors = {key: each.door for key, each in self._open.items()}
        # Those of before stay: somebody may be on the way who has met them.
        self._engine.call(lambda: self._doorman.add(doors))
        self._engine.listen(name, listening.dup(), settings)

    def _replace(self, name: str, listener: Listener) -> None:
        """Open a listener, or meet its clients in another manner; its queue stays."""
        there = self._open.pop(name, None)
        if there is not None:
            self._engine.unlisten(name)
        try:
            self._add(listener, there.listening if there is not None else None)
        except EdgeProxyError as error:
            log.warning("listener_failed", listen=name, reason=error)
        else:
            log.info("listener_opened", listen=name, mode=str(listener).partition("=")[2])

    def _close(self, name: str) -> None:
        closed = self._open.pop(name)
        self._engine.unlisten(name)
        closed.listening.close()
        if isinstance(closed.listener.address, UnixAddress):
            Path(closed.listener.address.path).unlink(missing_ok=True)


def _wanted(config: Config) -> tuple[Listener, ...]:
    """Return what is to be open."""
    app = config.admission.app
    found = config.door.listeners or (Listener(config.proxy.listen, door.TCP, app),)
    if config.tls.enabled:
        found = (*found, Listener(config.tls.listen, door.TLS, app))
    return found


def needs_tls(config: Config) -> bool:
    """Return whether any listener speaks TLS."""
    return any(each.kind == door.TLS for each in _wanted(config))


def backend_ca(config: Config) -> bytes | None:
    """Return who signs the certificates of backends, in PEM; None if TLS is spoken with none.

    Empty: whom the system trusts. Raises EdgeProxyError.
    """
    path = config.door.backend_ca
    if not config.door.backend_tls:
        return None
    try:
        return path.read_bytes() if path is not None else b""
    except OSError as error:
        raise EdgeProxyError(
            f"EDGEPROXY_BACKEND_TLS_CA={str(path)!r} cannot be read: {error.strerror}"
        ) from None


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


def _first_of(given: dict[str, socket.socket]) -> socket.socket | None:
    """Take the first one that was given, whatever its address, if there is one."""
    return given.pop(next(iter(given))) if given else None


def _bound(each: _Open) -> Listener:
    """Return a listener with the port that it has."""
    address = each.listener.address
    if isinstance(address, ListenAddress):
        address = ListenAddress(address.host, each.listening.getsockname()[1])
    return each.listener._replace(address=address)
