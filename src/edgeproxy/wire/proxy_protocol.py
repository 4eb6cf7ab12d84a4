"""A PROXY protocol header of either version at the start of a connection.

Which of the two it is, the bytes say; whether there is one at all, they must never decide: a
client could then write its own (HAProxy, proxy-protocol.txt section 5). Who asks here has been
configured to expect one, and trusts the peer.
"""

from __future__ import annotations

from edgeproxy.errors import WireError
from edgeproxy.wire import proxy_v1, proxy_v2
from edgeproxy.wire.proxy_header import Header

MOST_BYTES = max(proxy_v1.MOST_BYTES, proxy_v2.MOST_BYTES)
"""With so many bytes the answer of `decode` is never None."""


def decode(received: bytes | memoryview) -> Header | None:
    """Return the header that a connection begins with; None while more bytes are needed.

    `received` is everything that has come so far; the client's own bytes begin after
    `Header.size`. Raises WireError at the first byte that makes it something else.
    """
    if not len(received):
        return None
    if received[0] == proxy_v1.UNKNOWN[0]:
        return proxy_v1.decode(received)
    if received[0] == proxy_v2.SIGNATURE[0]:
        return proxy_v2.decode(received)
    raise WireError("not a PROXY header")
