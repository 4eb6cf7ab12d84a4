"""A rig whose clients speak TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from importlib import import_module
from typing import TypedDict, Unpack

import pytest

from edgeproxy.engine.contract import ListenerSettings
from edgeproxy.engine.tls import Certificate, TlsSettings
from tests.conformance.engines import MakeEngine
from tests.conformance.gates import ScriptedGate
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


class _ClientOptions(TypedDict, total=False):
    """How a client speaks; without a context, as the rig says, without a name, with `NAME`."""

    context: ssl.SSLContext
    name: str | None
    session: object
    buffer: int | None


class TlsRig(Rig):
    """As `Rig`, with TLS on all listeners that have no settings of their own.

    Attributes:
        context: How clients speak that have no context of their own.
        gives_tickets: Clients are given tickets. Those who need a certificate are not.
    """

    gives_tickets = True

    context: ssl.SSLContext | None = None

    def listener_settings(self) -> ListenerSettings:
        return ListenerSettings(tls=TlsSettings((own(),)))

    def serve_tls(self, tls: TlsSettings, gate: ScriptedGate | None = None) -> None:
        """Serve with these settings."""
        self.gives_tickets = not tls.client_ca_pem
        self.prepare(gate)
        self.listen(settings=ListenerSettings(tls=tls))
        self.start()

    def connect(self, listener: str = "main", buffer: int | None = None) -> TlsPeer:
        """Connect a client that has shaken hands."""
        return self.shaken(listener, buffer=buffer)

    def shaken(self, listener: str = "main", **options: Unpack[_ClientOptions]) -> TlsPeer:
        """Return a client that has shaken hands."""
        peer = self.unshaken(listener, **options)
        peer.sock.shake_hands(self.gives_tickets)
        return peer

    def unshaken(self, listener: str = "main", **options: Unpack[_ClientOptions]) -> TlsPeer:
        """Return a client that has connected, and sent nothing."""
        tcp = self.tcp(listener, options.get("buffer"))
        context = options.get("context") or self.context or client_context()
        name, session = options.get("name", NAME), options.get("session")
        return TlsPeer(self.keep(TlsClientSocket(tcp, context, name, session)))
