"""The settings of listeners that accept clients over TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeproxy.values import ListenAddress

DEFAULT_LISTEN = ListenAddress("0.0.0.0", 8443)  # noqa: S104 — an edge serves the world


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
