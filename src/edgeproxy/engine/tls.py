"""What TLS means to an engine: certificates, what is agreed on, and what came of it.

The protocol is OpenSSL's, 1.2 and 1.3. Ciphers and groups are those of Mozilla's intermediate
configuration (version 5.7), without those that need Diffie-Hellman parameters; the client's order
counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from edgeproxy.errors import EdgeProxyError

CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
    ":ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
    ":ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""Of TLS 1.2; those of 1.3 are OpenSSL's."""
GROUPS = "X25519:P-256:P-384"
TICKETS = 1
"""How many a client of TLS 1.3 gets for resuming; each costs a tenth of a handshake."""


class TlsError(EdgeProxyError):
    """A certificate or key cannot be used; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with those that vouch for it, and its key, as PEM.

    Attributes:
        chain_pem: The certificate first.
        key_pem: Never shown.
        names: Which names clients get it for: `example.com`, or `*.example.com` for all that
            have one label more.
    """

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How the clients of a listener are met.

    Attributes:
        certificates: The first is for whoever asks for no name, or one that nobody has.
        alpn: The protocols that are offered, the best first; none: the client's wish is ignored.
        client_ca_pem: Clients have to show a certificate that one of these has signed; empty:
            they show none.
        handshake_secs: How long a handshake may take.
    """

    certificates: tuple[Certificate, ...]
    alpn: tuple[str, ...] = ()
    client_ca_pem: bytes = b""
    handshake_secs: float = 5.0


class TlsInfo(NamedTuple):
    """What was agreed on with a client. The name is hostile text.

    `about` is that of its `contract.Identified`, if it said something before the handshake.
    """

    server_name: str
    alpn: str
    version: str
    is_resumed: bool
    about: object = None
