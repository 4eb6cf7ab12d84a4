"""Certificates, and how the clients of a listener are met: what `control` reads and engines use."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeproxy.errors import EdgeProxyError
from edgeproxy.value import ListenAddress

DEFAULT_LISTEN = ListenAddress("0.0.0.0", 8443)  # noqa: S104 — an edge serves the world


class TlsError(EdgeProxyError):
    """A certificate or key cannot be used; nothing has changed."""


@dataclass(frozen=True, slots=True)
class TlsListenSettings:
    """Clients that come over TLS.

    Attributes:
        enabled: Whether they are accepted.
        listen: Where.
        cert: PEM file of a certificate and those that vouch for it; None, and no `cert_dir`: a
            self-signed one is made.
        key: PEM file of its private key.
        cert_dir: Directory of certificates that clients ask for by name.
        client_ca: PEM file of authorities; clients have to show a certificate of one of them.
        alpn: The protocols that are offered, the best first.
        handshake_timeout_secs: How long a handshake may take.
    """

    enabled: bool = False
    listen: ListenAddress = DEFAULT_LISTEN
    cert: Path | None = None
    key: Path | None = None
    cert_dir: Path | None = None
    client_ca: Path | None = None
    alpn: tuple[str, ...] = ()
    handshake_timeout_secs: float = 5.0


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
