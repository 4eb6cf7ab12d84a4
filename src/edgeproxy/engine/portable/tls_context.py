"""TLS with backends for the portable engine, and the authorities that sign their certificates."""

from __future__ import annotations

import socket
import ssl

from edgeproxy.engine.portable.tls_socket import TlsSocket
from edgeproxy.engine.tls import CIPHERS, TlsError


def backend_context(ca_pem: bytes = b"", alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """Return how connections to backends speak TLS. `ca_pem`: authorities; empty: the system's.

    `alpn`: the protocols to offer. Raises TlsError if there is no certificate in it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    try:
        if ca_pem:
            context.load_verify_locations(cadata=ca_pem.decode("ascii"))
        else:
            context.set_default_verify_paths()
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"the authorities for backends cannot be used: {error}") from None
    return context


class BackendTls:
    """Makes connections to backends speak TLS, by `backend_context`."""

    def __init__(self, ca_pem: bytes = b"") -> None:
        self._ca_pem = ca_pem
        self._contexts = {"": backend_context(ca_pem)}

    def wrap(self, tcp: socket.socket, server_name: str, alpn: str = "") -> TlsSocket:
        """Return a TLS socket that replaces this one; its handshake has not begun.

        `alpn` is the protocol to offer, if any. It is one that listeners offer, so there are few.
        """
        if alpn not in self._contexts:
            self._contexts[alpn] = backend_context(self._ca_pem, (alpn,))
        return TlsSocket(tcp, self._contexts[alpn], server_name)
