"""A rig whose clients speak TLS."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from importlib import import_module

import pytest

from edgeproxy.engine.contract import PLAIN, ListenerSettings
from edgeproxy.engine.tls import Certificate, TlsSettings
from tests.conformance.engines import MakeEngine
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import DEADLINE_SECS, limit_buffers
from tests.conformance.rig import Rig
from tests.conformance.tls_certificates import certificate
from tests.conformance.tls_peers import TlsClientSocket, TlsPeer, client_context

NAME = "edge.test"


def running(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    """Yield a rig for this engine, and check its bookkeeping afterwards."""
    kind, _ = engine
    if kind == "native" and not _native_has_tls():
        pytest.skip("the native engine was built without OpenSSL")
    rig = TlsRig(*engine)
    yield rig
    rig.close()


def _native_has_tls() -> bool:
    return bool(import_module("edgeproxy.engine.native.tls.tls_end").HAS_TLS)


def own() -> Certificate:
    """Return the certificate that listeners have if a test names no other."""
    return certificate(NAME).for_names(NAME)


class TlsRig(Rig):
    """As `Rig`, with TLS on all listeners that have no settings of their own.

    Attributes:
        context: How clients speak that are told nothing else.
    """

    context: ssl.SSLContext | None = None

    def listen(
        self,
        name: str = "main",
        host: str = "127.0.0.1",
        buffer: int | None = None,
        settings: ListenerSettings = PLAIN,
    ) -> tuple[str, int]:
        if settings is PLAIN:
            settings = ListenerSettings(tls=TlsSettings((own(),)))
        return super().listen(name, host, buffer, settings)

    def serve_tls(self, tls: TlsSettings, gate: ScriptedGate | None = None) -> None:
        """Serve with these settings."""
        self.prepare(gate)
        self.listen(settings=ListenerSettings(tls=tls))
        self.start()

    def connect(self, listener: str = "main", buffer: int | None = None) -> TlsPeer:
        """Connect a client that has shaken hands."""
        return self.shaken(listener, buffer=buffer)

    def shaken(
        self,
        listener: str = "main",
        *,
        context: ssl.SSLContext | None = None,
        name: str | None = NAME,
        session: object = None,
        buffer: int | None = None,
    ) -> TlsPeer:
        """Return a client that has shaken hands, as it likes to."""
        peer = self.unshaken(listener, context=context, name=name, session=session, buffer=buffer)
        peer.sock.shake_hands()
        return peer

    def unshaken(
        self,
        listener: str = "main",
        *,
        context: ssl.SSLContext | None = None,
        name: str | None = NAME,
        session: object = None,
        buffer: int | None = None,
    ) -> TlsPeer:
        """Return a client that has connected, and said nothing."""
        tcp = self.tcp(listener, buffer)
        used = context or self.context or client_context()
        return TlsPeer(self.keep(TlsClientSocket(tcp, used, name, session)))

    def tcp(self, listener: str = "main", buffer: int | None = None) -> socket.socket:
        """Return a connection on which nobody speaks TLS yet."""
        address = self.addresses[listener]
        tcp = self.keep(socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET))
        if buffer:
            limit_buffers(tcp, buffer)
        tcp.settimeout(DEADLINE_SECS)
        code = tcp.connect_ex(address)
        if code not in (0, errno.ECONNRESET):
            raise OSError(code, os.strerror(code))
        return tcp
