"""TLS with backends for the portable engine: whom they have to be trusted by."""

from __future__ import annotations

import socket
import ssl

from edgeproxy.engine.tls import TlsError
from edgeproxy.engine.tls_socket import TlsSocket


class BackendTls:
    """Makes connections to backends speak TLS. `ca_pem` is empty for whom the system trusts.

    Raises TlsError if there is no certificate in it.
    """

    def __init__(self, ca_pem: bytes = b"") -> None:
        try:
            self._context = ssl.create_default_context(cadata=ca_pem.decode() if ca_pem else None)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"those to trust cannot be used: {error}") from None
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def wrap(self, tcp: socket.socket, server_name: str) -> TlsSocket:
        """Return a socket in the place of this one, whose handshake has not begun."""
        return TlsSocket(tcp, self._context, server_name)
