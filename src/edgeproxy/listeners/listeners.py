"""Runs the listeners of a proxy: opens them, follows their settings, hands them to a successor.

A listener is known by its address. One that cannot be opened or changed while the proxy runs is
reported once and tried again at every `retry`; until then everything else stays as it is.

The routing table comes first: whatever a listener leads to is in the table before it opens.

Certificates are read without the lock, so that a file system that hangs holds up neither a change
of listeners nor the end.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.engine.contract import Engine, ListenerSettings
from edgeproxy.errors import EdgeProxyError
from edgeproxy.gate.preamble import ListenerPolicy, PreambleParser
from edgeproxy.listeners.opening import OpenSocket, open_all, open_socket
from edgeproxy.listeners.settings import ListenSettings
from edgeproxy.listeners.spec import SNI, TLS, Listener
from edgeproxy.log import EventLog

if TYPE_CHECKING:
    import socket

    from edgeproxy.control.observe.status_snapshot import ListenerSnapshot
    from edgeproxy.engine.tls import TlsSettings
    from edgeproxy.tls.authorities import Authorities
    from edgeproxy.tls.certificates import Certificates
    from edgeproxy.tls.settings import TlsListenSettings

log = EventLog("listeners")


class _Open(NamedTuple):
    """A listener that is open.

    `name` is what the engine and the gate call it. It changes whenever `policy` or `settings` do:
    clients that were accepted earlier are still treated by the earlier ones.
    """

    name: str
    listener: Listener
    policy: ListenerPolicy
    settings: ListenerSettings
    socket: OpenSocket

    def bound(self) -> Listener:
        """Return the listener with the port that it is bound to."""
        return self.listener._replace(address=self.socket.bound_address())


class Listeners:
    """The listeners of one proxy. Its methods may be called from any thread."""

    def __init__(
        self,
        settings: ListenSettings,
        tls_settings: TlsListenSettings,
        engine: Engine,
        preamble_parser: PreambleParser,
        authorities: Authorities | None = None,
    ) -> None:
        """`authorities` sign backend certificates. Raises EdgeProxyError for bad certificates."""
        self._settings = settings
        self._tls_settings = tls_settings
        self._engine = engine
        self._preamble_parser = preamble_parser
        self._authorities = authorities
        self._certificates: Certificates | None = None
        self._tls: TlsSettings | None = None
        self._open: dict[str, _Open] = {}
        self._failures: dict[str, str] = {}  # why a listener could not be opened or changed
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # held while certificates are read for the first time
        self._tls_failure: EdgeProxyError | None = None
        self._is_closed = False
        self._load_certificates(settings)
        if self._tls_failure is not None:
            raise self._tls_failure

    def open(
        self, inherited: Mapping[str, socket.socket], activated: Iterable[socket.socket]
    ) -> list[Listener]:
        """Open all listeners, on the sockets of a predecessor or of systemd where there are any.

        Returns them with the ports that the system chose. Raises EdgeProxyError.
        """
        listeners = _by_name(self._settings.listen)
        addresses = {name: listener.address for name, listener in listeners.items()}
        sockets = open_all(addresses, inherited, activated)
        try:
            for name, listener in listeners.items():
                self._accept(name, listener, sockets[name], *self._policy_and_settings(listener))
        except EdgeProxyError:
            for opened in sockets.values():
                opened.close(keeps_file=bool(inherited))
            raise
        return [each.bound() for each in self._open.values()]

    def change(self, settings: ListenSettings) -> None:
        """Apply other settings: open, change and close what differs."""
        self._load_certificates(settings)
        with self._lock:
            if self._is_closed:
                return
            self._settings = settings
            listeners = _by_name(settings.listen)
            for name in self._open.keys() - listeners.keys():
                closed = self._open.pop(name)
                self._engine.unlisten(closed.name)
                closed.socket.close()
                log.info("listener_closed", listen=name)
            if networks := settings.proxy_protocol_in:
                # Without networks, the old ones stay: clients in their preread still need them.
                self._engine.call(lambda: self._preamble_parser.trust(networks))
            self._failures = {
                name: failure for name, failure in self._failures.items() if name in listeners
            }
            for name, listener in listeners.items():
                self._follow(name, listener)
            if not settings.speaks_tls:
                self._certificates = self._tls = None

    def refresh_certificates(self) -> None:
        """Use renewed certificates, or those that could not be read so far."""
        self._load_certificates(self._settings)
        used = self._certificates
        renewed = used.reload() if used is not None else None
        with self._lock:
            if self._is_closed:
                return
            if renewed is not None and self._certificates is used:
                self._renew(renewed)

    def retry(self) -> None:
        """Try the listeners again that could not be opened or changed."""
        with self._lock:
            if self._is_closed:
                return
            listeners = _by_name(self._settings.listen)
            for name in list(self._failures):
                self._follow(name, listeners[name])

    def refresh_authorities(self) -> None:
        """Trust the authorities of backends that have changed."""
        trusted = self._authorities.reload() if self._authorities is not None else None
        if trusted is not None:
            self._engine.trust(trusted)

    def certificates_state(self) -> tuple[int, float] | None:
        """Return the number of failed reloads, and when the first certificate expires (Unix)."""
        used = self._certificates
        return (used.errors, used.expires_at) if used is not None else None

    def snapshots(self) -> tuple[ListenerSnapshot, ...]:
        """Return the state of each listener."""
        from edgeproxy.control.observe.status_snapshot import ListenerSnapshot

        with self._lock:
            if self._is_closed:
                return ()
            return tuple(
                ListenerSnapshot(
                    str((self._open[name].bound() if name in self._open else each).address),
                    each.mode,
                    self._failures.get(name, ""),
                )
                for name, each in _by_name(self._settings.listen).items()
            )

    def sockets(self) -> dict[str, socket.socket]:
        """Return all sockets by the names of their listeners, for a successor."""
        with self._lock:
            return {name: opened.socket.listening for name, opened in self._open.items()}

    def by_description(self) -> dict[str, socket.socket]:
        """Return all sockets by what each is to people."""
        return {f"the listener {name}": each for name, each in self.sockets().items()}

    def close(self, *, has_successor: bool) -> None:
        """Close all listeners; the files of Unix sockets stay if there is a successor."""
        with self._lock:
            self._is_closed = True
            for opened in self._open.values():
                opened.socket.close(keeps_file=has_successor)
            self._open.clear()

    def _load_certificates(self, settings: ListenSettings) -> None:
        """Read the certificates if a listener needs them and there are none, or note the fault."""
        if not settings.speaks_tls:
            return
        from edgeproxy.tls.certificates import Certificates

        with self._reading:
            if self._certificates is not None:
                return
            certificates = Certificates(self._tls_settings)
            try:
                self._tls = certificates.load()
            except EdgeProxyError as error:
                self._tls_failure = error
                return
            self._certificates, self._tls_failure = certificates, None

    def _renew(self, renewed: TlsSettings) -> None:
        self._tls = renewed
        for name, opened in self._open.items():
            if opened.settings.tls is not None:
                tls = self._with_setup_timeout(renewed)
                self._engine.renew(opened.name, tls)
                settings = dataclasses.replace(opened.settings, tls=tls)
                self._open[name] = opened._replace(settings=settings)

    def _with_setup_timeout(self, tls: TlsSettings) -> TlsSettings:
        secs = self._settings.client_setup_timeout_secs
        return dataclasses.replace(tls, handshake_secs=secs)

    def _policy_and_settings(self, listener: Listener) -> tuple[ListenerPolicy, ListenerSettings]:
        """Return how gate and engine treat the clients of a listener. Raises EdgeProxyError."""
        tls = None
        if listener.kind == TLS:
            if self._tls is None:
                assert self._tls_failure is not None
                raise self._tls_failure.with_traceback(None)  # it would grow with every try
            tls = self._with_setup_timeout(self._tls)
        given = self._settings
        policy = ListenerPolicy(
            listener.app,
            routes_by_sni=listener.kind == SNI,
            expects_proxy_header=bool(given.proxy_protocol_in),
            address=str(listener.address),
        )
        has_preamble = policy.routes_by_sni or policy.expects_proxy_header
        return policy, ListenerSettings(
            preamble_secs=given.client_setup_timeout_secs if has_preamble else 0.0,
            tls=tls,
            tells_local=given.sends_proxy_header,
        )

    def _accept(
        self,
        name: str,
        listener: Listener,
        opened: OpenSocket,
        policy: ListenerPolicy,
        settings: ListenerSettings,
    ) -> None:
        """Accept clients from a socket. Raises EdgeProxyError; nothing has changed then."""
        known_as = f"{name} {next(self._numbers)}"
        # Earlier policies stay: the gate still reads clients that were accepted under them.
        self._engine.call(lambda: self._preamble_parser.add({known_as: policy}))
        self._engine.listen(known_as, opened.listening.dup(), settings)
        self._open[name] = _Open(known_as, listener, policy, settings, opened)

    def _follow(self, name: str, listener: Listener) -> None:
        """Open a listener, or change how its clients are treated, if that differs.

        Its socket and its queue stay. A failure leaves it as it is and is reported once.
        """
        before = self._open.get(name)
        try:
            wanted = self._policy_and_settings(listener)
            if before is None:
                self._open_new(name, listener, *wanted)
            elif wanted == (before.policy, before.settings):
                self._failures.pop(name, None)
                return
            else:
                self._accept(name, listener, before.socket, *wanted)
                self._engine.unlisten(before.name)
        except EdgeProxyError as error:
            if self._failures.get(name) != str(error):
                log.warning("listener_failed", listen=name, reason=error)
            self._failures[name] = str(error)
        else:
            self._failures.pop(name, None)
            bound = self._open[name].bound()
            log.info("listener_opened", listen=bound.address, mode=bound.mode)

    def _open_new(
        self, name: str, listener: Listener, policy: ListenerPolicy, settings: ListenerSettings
    ) -> None:
        opened = open_socket(listener.address)
        try:
            self._accept(name, listener, opened, policy, settings)
        except EdgeProxyError:
            opened.close()
            raise


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
