"""What TLS means to an engine: certificates, what is agreed on, and what came of it.

The protocol is OpenSSL's, 1.2 and 1.3. Ciphers and groups are those of Mozilla's intermediate
configuration (version 5.7), without those that need Diffie-Hellman parameters; the client's order
counts.
"""

from __future__ import annotations

from typing import NamedTuple

from edgeproxy.tls import Certificate, TlsError, TlsSettings

__all__ = ("CIPHERS", "GROUPS", "Certificate", "TlsError", "TlsInfo", "TlsSettings")

CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
    ":ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
    ":ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""Of TLS 1.2; those of 1.3 are OpenSSL's."""
GROUPS = "X25519:P-256:P-384"
TICKETS = 1
"""How many a client of TLS 1.3 gets for resuming; each costs a tenth of a handshake."""


class TlsInfo(NamedTuple):
    """What was agreed on with a client. The name is hostile text.

    `about` is that of its `contract.Known`, if it said something before the handshake.
    """

    server_name: str
    alpn: str
    version: str
    is_resumed: bool
    about: object = None
