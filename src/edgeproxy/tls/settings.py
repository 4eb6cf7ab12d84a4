"""The settings of listeners that accept clients over TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeproxy.values import ListenAddress

DEFAULT_LISTEN = ListenAddress("0.0.0.0", 8443)  # noqa: S104 — an edge serves the world


@dataclass(frozen=True, slots=True)
class TlsListenSettings:
    """The TLS listener, and the certificates of all listeners that speak TLS.

    Attributes:
        enabled: Accept clients over TLS too.
        listen_addr: Address to accept them on.
        cert: PEM file of a certificate and its intermediates; without it and without `cert_dir`
            the proxy makes a self-signed one.
        key: PEM file of the private key of `cert`.
        cert_dir: Directory of certificates by server name.
        client_ca: PEM file of authorities, one of which must have signed a client's certificate.
        alpn: ALPN protocols to offer, preferred first.
    """

    enabled: bool = False
    listen_addr: ListenAddress = DEFAULT_LISTEN
    cert: Path | None = None
    key: Path | None = None
    cert_dir: Path | None = None
    client_ca: Path | None = None
    alpn: tuple[str, ...] = ()
