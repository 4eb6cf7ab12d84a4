"""The settings of listeners: where clients are accepted, and what is exchanged before their data.

`Config.listen_settings` makes them from what the user wrote: it knows every way to name a listener.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeproxy.core.geo.prefix import Network
from edgeproxy.listeners.spec import (
    TLS,
    BackendTlsName,
    Listener,
    ProxyProtocolOut,
    Route,
)


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """The listeners, and what clients and backends exchange before the client's data.

    Attributes:
        listen: All listeners; in a `Config` those of `EDGEPROXY_LISTENERS`.
        routes: The app of each server name.
        proxy_protocol_in: Networks of load balancers, which must send a PROXY header first.
        proxy_protocol_out: The PROXY header that the backends of an app get.
        backend_tls: The name in the certificate of backends that speak TLS.
        backend_tls_ca: PEM file of authorities that sign their certificates; None: the system's.
        client_setup_timeout_secs: How long a client may take for its PROXY header and server name,
            and then for the TLS handshake.
    """

    listen: tuple[Listener, ...] = ()
    routes: tuple[Route, ...] = ()
    proxy_protocol_in: tuple[Network, ...] = ()
    proxy_protocol_out: tuple[ProxyProtocolOut, ...] = ()
    backend_tls: tuple[BackendTlsName, ...] = ()
    backend_tls_ca: Path | None = None
    client_setup_timeout_secs: float = 5.0

    @property
    def speaks_tls(self) -> bool:
        """Whether any listener speaks TLS with its clients."""
        return any(each.kind == TLS for each in self.listen)

    @property
    def sends_proxy_header(self) -> bool:
        """Whether any backend gets a PROXY header."""
        return any(each.version != "off" for each in self.proxy_protocol_out)
