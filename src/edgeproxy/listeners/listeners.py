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

from edgeproxy.config.load import Config
from edgeproxy.core.routing.server_names import ServerNames
from edgeproxy.engine.contract import Engine, ListenerSettings
from edgeproxy.engine.sockets import open_listener, open_unix_listener, prepare
from edgeproxy.errors import EdgeProxyError
from edgeproxy.gate.preamble import ListenerPolicy, PreambleParser
from edgeproxy.listeners import spec as door
from edgeproxy.listeners.spec import Listener, UnixAddress
from edgeproxy.log import EventLog
from edgeproxy.values import ListenAddress

if TYPE_CHECKING:
    from edgeproxy.engine.tls import TlsSettings
    from edgeproxy.tls.authorities import Authorities
    from edgeproxy.tls.certificates import Certificates

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
        config: Config,
        engine: Engine,
        preamble_parser: PreambleParser,
        authorities: Authorities | None = None,
    ) -> None:
        """`authorities` are those of backends. Raises EdgeProxyError for bad certificates."""
        self._authorities = authorities
        self.certificates: Certificates | None = None
        self._config = self._expected = config
        self._engine = engine
        self._preamble_parser = preamble_parser
        self._tls: TlsSettings | None = None
        self._open: dict[str, _Open] = {}
        self._failed: dict[str, str] = {}  # what could not be opened, and why
        self._routes: dict[str, str] = {}
        self._apps: set[str] = set()  # of server names, as they are led now
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._is_closed = False
        if needs_tls(config):
            self._load_certificates()

    def open(
        self, handed: Mapping[str, socket.socket], given: Iterable[socket.socket]
    ) -> list[Listener]:
        """Open all of them, or take those that a predecessor has handed or systemd has given.

        Returns what is open, with the ports that the system chose. Raises EdgeProxyError.
        """
        wanted, left = _wanted(self._config), dict(handed)
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

    def expect(self, config: Config) -> None:
        """Count as scopes what clients can be led to after `change`, too."""
        self._expected = config

    def change(self, config: Config) -> None:
        """Follow other settings, as far as they are other."""
        with self._lock:
            if self._is_closed:
                return
            self._config = self._expected = config
            wanted = _wanted(config)
            for name in self._open.keys() - wanted.keys():
                self._close(name)
                log.info("listener_closed", listen=name)
            if networks := config.listeners.proxy_protocol_in:
                # Without networks, the old ones stay: clients in their preread still need them.
                self._engine.call(lambda: self._preamble_parser.trust(networks))
            self._failed = {name: why for name, why in self._failed.items() if name in wanted}
            for name, listener in wanted.items():
                self._follow(name, listener)
            if not needs_tls(config):
                self.certificates = self._tls = None
        self.lead()

    def route(self, routes: Mapping[str, str]) -> None:
        """Lead the clients of server names to these apps, from the next `lead` on."""
        self._routes = dict(routes)

    def lead(self) -> None:
        """Lead clients by the names that are known now; the configuration comes first."""
        routes = self._routes | dict(self._config.listeners.routes)
        names = ServerNames(routes)
        self._apps = set(routes.values())

        def use() -> None:
            self._preamble_parser.names = names

        self._engine.call(use)

    def scopes(self) -> set[str]:
        """Return what clients can be led to, now and soon."""
        found: set[str] = set()
        for config in (self._config, self._expected):
            wanted = _wanted(config).values()
            found |= {each.app for each in wanted if each.kind != door.SNI}
            if any(each.kind == door.SNI for each in wanted):
                found |= {*self._routes.values(), *(each.app for each in config.listeners.routes)}
                found |= self._apps
        return found

    def refresh(self) -> None:
        """Use certificates that are new, and try again to open what could not be opened."""
        with self._lock:
            if self._is_closed:
                return
            self._renew()
            wanted = _wanted(self._config)
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

        certificates = Certificates(self._config.tls)
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
                secs = each.settings.tls.handshake_secs
                used = dataclasses.replace(renewed, handshake_secs=secs)
                self._engine.renew(each.name, used)
                settings = dataclasses.replace(each.settings, tls=used)
                self._open[name] = dataclasses.replace(each, settings=settings)

    def _manner(self, listener: Listener) -> tuple[ListenerPolicy, ListenerSettings]:
        """Return how the clients of a listener are met. Raises EdgeProxyError."""
        settings = self._config.listeners
        setup_secs, tls = settings.client_setup_timeout_secs, None
        if listener.kind == door.TLS:
            if self._tls is None:
                self._load_certificates()
            assert self._tls is not None
            tls = dataclasses.replace(self._tls, handshake_secs=setup_secs)
        routes_by_sni, expects_proxy_header = (
            listener.kind == door.SNI,
            bool(settings.proxy_protocol_in),
        )
        return ListenerPolicy(listener.app, routes_by_sni, expects_proxy_header), ListenerSettings(
            preamble_secs=setup_secs if routes_by_sni or expects_proxy_header else 0.0,
            tls=tls,
            tells_local=any(each.version != "off" for each in settings.proxy_protocol_out),
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


def _wanted(config: Config) -> dict[str, Listener]:
    """Return what is to be open, by name; further ones of one address are numbered."""
    app = config.admission.app
    wanted = config.listeners.listen or (Listener(config.proxy.listen_addr, door.TCP, app),)
    if config.tls.enabled:
        wanted = (*wanted, Listener(config.tls.listen_addr, door.TLS, app))
    found: dict[str, Listener] = {}
    for each in wanted:
        name, number = str(each.address), 1
        while name in found:
            number += 1
            name = f"{each.address}#{number}"
        found[name] = each
    return found


def needs_tls(config: Config) -> bool:
    """Return whether any listener speaks TLS."""
    return any(each.kind == door.TLS for each in _wanted(config).values())


def backend_authorities(config: Config) -> tuple[Authorities | None, bytes | None]:
    """Return who signs the certificates of backends: the file, and what it holds, in PEM.

    That is empty for whom the system trusts, None if TLS is spoken with no backend. Raises
    EdgeProxyError.
    """
    path = config.listeners.backend_tls_ca
    if not config.listeners.backend_tls:
        return None, None
    if path is None:
        return None, b""
    from edgeproxy.tls.authorities import Authorities

    authorities = Authorities(path)
    try:
        return authorities, authorities.load()
    except EdgeProxyError as error:
        raise EdgeProxyError(f"EDGEPROXY_BACKEND_TLS_CA: {error}") from None


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
