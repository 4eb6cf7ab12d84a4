"""Checks the server name that a client has sent, in TLS or through a proxy in front.

The name is untrusted text. The result is always a host name in normal form, safe to log, compare
and show. `wire.client_hello` and `wire.proxy_v2` are the two places a name comes from.
"""

from __future__ import annotations

from ipaddress import ip_address

from edgeproxy.errors import WireError
from edgeproxy.host_name import host_name

MAX_BYTES = 255
"""Longest name that is accepted, in bytes."""


def decode(sent: bytes) -> str | None:
    """Return the server name; None if it is an IP address.

    RFC 6066 section 3 forbids addresses and the trailing dot, but some clients send them: an
    address counts as no name, and the dot is dropped. Raises WireError for any other text that is
    no host name, such as one with NUL, spaces, line ends or non-ASCII characters.
    """
    text = sent[: MAX_BYTES + 1].decode("latin-1")
    name = host_name(text) if text.isascii() else None
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
