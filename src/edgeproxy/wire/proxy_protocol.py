"""Decodes a PROXY protocol header of either version at the start of a connection.

The bytes decide which version it is. They never decide whether there is a header: a client could
then forge one (HAProxy, proxy-protocol.txt section 5). The caller must be configured to expect a
header, and must trust the peer.
"""

from __future__ import annotations

from edgeproxy.errors import WireError
from edgeproxy.wire import proxy_v1, proxy_v2
from edgeproxy.wire.proxy_header import Header

MAX_BYTES = max(proxy_v1.MAX_BYTES, proxy_v2.MAX_BYTES)
"""Given this many bytes, `decode` never returns None."""


def decode(received: bytes | memoryview) -> Header | None:
    """Return the header at the start of a connection; None while more bytes are needed.

    `received` is all bytes received so far; the client's own bytes begin after `Header.size`.
    Raises WireError at the first byte that no header can have.
    """
    if not len(received):
        return None
    if received[0] == proxy_v1.UNKNOWN[0]:
        return proxy_v1.decode(received)
    if received[0] == proxy_v2.SIGNATURE[0]:
        return proxy_v2.decode(received)
    raise WireError("not a PROXY header")
