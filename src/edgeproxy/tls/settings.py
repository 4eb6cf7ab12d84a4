"""The settings of listeners that accept clients over TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeproxy.values import ListenAddress

DEFAULT_LISTEN = ListenAddress("0.0.0.0", 8443)  # noqa: S104 — an edge serves the world


@dataclass(frozen=True, slots=True)
class TlsListenSettings:
    """How listeners accept clients over TLS.

    Attributes:
        enabled: Whether there is a listener with TLS.
        listen: Its address.
        cert: PEM file of a certificate and its chain. Without it and without `cert_dir`, a
            self-signed certificate is made.
        key: PEM file of its private key.
        cert_dir: Directory of certificates, selected by the server name that a client sends.
        client_ca: PEM file of authorities; clients must present a certificate signed by one.
        alpn: The protocols that are offered, the preferred one first.
        handshake_timeout_secs: Longest duration of a handshake.
    """

    enabled: bool = False
    listen: ListenAddress = DEFAULT_LISTEN
    cert: Path | None = None
    key: Path | None = None
    cert_dir: Path | None = None
    client_ca: Path | None = None
    alpn: tuple[str, ...] = ()
    handshake_timeout_secs: float = 5.0
