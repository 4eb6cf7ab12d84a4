"""The name of a server as a client has sent it, in TLS or passed on by a proxy in front.

It is hostile text: what comes out of here is a host name in normal form and nothing else, safe
to log, to compare and to show. Where it may come from says `wire.client_hello` and
`wire.proxy_v2`.
"""

from __future__ import annotations

from ipaddress import ip_address

from edgeproxy.core.routing.server_names import host_name
from edgeproxy.errors import WireError

MOST_BYTES = 255
"""Of what is sent, no more is looked at; a longer name is none."""


def decode(sent: bytes) -> str | None:
    """Return the server name; None if an IP address stands in its place.

    RFC 6066 section 3 forbids addresses and the trailing dot, but some clients send them: an
    address counts as no name, a dot is dropped. Raises WireError for all else that is no host
    name, above all for NUL, spaces, line ends and anything outside ASCII.
    """
    text = sent[: MOST_BYTES + 1].decode("latin-1")
    name = host_name(text)
    if name is None and not _is_address(text):
        raise WireError("the server name is not a host name")
    return name


def _is_address(text: str) -> bool:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ip_address(bare.removesuffix("."))
    except ValueError:
        return False
    return "%" not in text
