"""Tells backends the address of their clients and how these speak TLS, by the PROXY protocol.

The address is the client's own, whether it connected here or to a load balancer in front. Each
connection has an id, which the access log shows too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from edgeproxy.wire import proxy_v1, proxy_v2
from edgeproxy.wire.proxy_header import Endpoint


class ClientIdentity(NamedTuple):
    """What backends are told of a client: the same for every backend that is tried.

    `source` is the client's address, `destination` the address it connected to; None where that
    is not an internet address. `alpn` is the protocol that was agreed on with it, and `tls` how it
    speaks TLS (`proxy_v2.tls_of`); b"" if it does not.
    """

    source: Endpoint | None
    destination: Endpoint | None
    server_name: str
    unique_id: str
    alpn: bytes = b""
    tls: bytes = b""


class ProxyHeaderWriter:
    """Writes PROXY headers in the version that each app wants. For one thread.

    `versions` gives `off`, `v1` or `v2` for each app; "" stands for all others. `seed` makes the
    ids of this process different from those of other processes.
    """

    def __init__(self, versions: Iterable[tuple[str, str]], seed: str) -> None:
        self._versions = dict(versions)
        self._default = self._versions.pop("", "off")
        self._seed = seed
        self._numbers = itertools.count(1)
        self.is_wanted = any(each != "off" for each in (self._default, *self._versions.values()))

    def next_id(self) -> str:
        """Return an id that no other connection has."""
        return f"{self._seed}-{next(self._numbers):x}"

    def without_client(self, app: str) -> bytes:
        """Return the header for a connection that the proxy makes for itself, such as a probe."""
        return self.prefix(ClientIdentity(None, None, "", ""), app)

    def prefix(self, presented: ClientIdentity, app: str) -> bytes:
        """Return the header for a backend of this app, sent before the client's first byte."""
        version = self._versions.get(app, self._default)
        if version == "v1":
            return proxy_v1.encode(presented.source, presented.destination)
        if version == "v2":
            return proxy_v2.encode(
                presented.source,
                presented.destination,
                server_name=presented.server_name or None,
                alpn=presented.alpn,
                unique_id=presented.unique_id.encode(),
                tls=presented.tls,
            )
        return b""
