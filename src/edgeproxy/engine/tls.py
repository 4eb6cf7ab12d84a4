"""TLS as an engine sees it: certificates, settings, and the outcome of a handshake.

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
"""Ciphers for TLS 1.2. For TLS 1.3, OpenSSL's defaults are used."""
GROUPS = "X25519:P-256:P-384"
TICKETS = 1
"""Session tickets that a TLS 1.3 client gets; each costs a tenth of a handshake."""


class TlsError(EdgeProxyError):
    """A certificate or key cannot be used; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its intermediates, and its private key, as PEM.

    Attributes:
        chain_pem: The certificate first.
        key_pem: Never shown.
        names: The server names that it serves, in normal form (`host_name`): `example.com`, or
            `*.example.com` for any one label before it.
    """

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How a listener speaks TLS with its clients.

    Attributes:
        certificates: The first is for clients that send no server name, or an unknown one.
        alpn: The protocols that are offered, preferred first; empty: no ALPN. A client that offers
            others only is refused (RFC 7301).
        client_ca_pem: The authorities, one of which must have signed a client's certificate;
            empty: clients need no certificate. With them, clients cannot resume: whoever needs a
            certificate shows it on every connection, and it is judged each time.
        handshake_secs: How long a handshake may take.
    """

    certificates: tuple[Certificate, ...]
    alpn: tuple[str, ...] = ()
    client_ca_pem: bytes = b""
    handshake_secs: float = 5.0


class TlsInfo(NamedTuple):
    """The outcome of a handshake with a client.

    `server_name` is in normal form (`host_name`), or "". `about` is the one of
    `contract.Identified`, if the client sent a preamble. `has_certificate`: the client has shown a
    certificate, which an authority of the listener has signed; `common_name` is the first one in
    it, or "".
    """

    server_name: str
    alpn: str
    version: str
    is_resumed: bool
    about: object = None
    has_certificate: bool = False
    common_name: str = ""
