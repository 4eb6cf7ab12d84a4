"""Decides whether the `Host` of a request may be one that a browser was led to by a foreign page.

A page of `evil.example` can let that name point to the address of a proxy and then read from it as
from its own server (DNS rebinding). Its requests carry its name. It cannot carry the following,
because nobody can register them: an address, a name without a dot, the name of this machine, and
names below the domains that are reserved for private use (RFC 6761, 6762, 8375, and `internal`).
A request without `Host` does not come from a browser.
"""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address

from edgeproxy.host_name import host_name

PRIVATE_DOMAINS = ("localhost", "local", "internal", "home.arpa", "test")

_PORT = re.compile(r":[0-9]{1,5}\Z")


def is_own_host(host: str) -> bool:
    """Return whether no foreign page can have a browser send this `Host`."""
    text = _PORT.sub("", host.strip())
    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        pass
    else:
        return True
    name = host_name(text) or text
    return (
        "." not in name
        or name == host_name(socket.gethostname())
        or any(name.endswith(f".{domain}") for domain in PRIVATE_DOMAINS)
    )
