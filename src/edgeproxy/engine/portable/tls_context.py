"""TLS with backends for the portable engine: whom they have to be trusted by."""

from __future__ import annotations

import socket
import ssl

from edgeproxy.engine.portable.tls_socket import TlsSocket
from edgeproxy.engine.tls import CIPHERS, TlsError


class BackendTls:
    """Makes connections to backends speak TLS. `ca_pem` is empty for whom the system trusts.

    Raises TlsError if there is no certificate in it.
    """

    def __init__(self, ca_pem: bytes = b"") -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies certificate and name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_ciphers(CIPHERS)
        try:
            if ca_pem:
                context.load_verify_locations(cadata=ca_pem.decode("ascii"))
            else:
                context.set_default_verify_paths()
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"those to trust cannot be used: {error}") from None
        self._context = context

    def wrap(self, tcp: socket.socket, server_name: str) -> TlsSocket:
        """Return a socket in the place of this one, whose handshake has not begun."""
        return TlsSocket(tcp, self._context, server_name)
