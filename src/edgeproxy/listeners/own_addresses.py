"""Looks up what this proxy listens on, and the addresses of its host.

`core/backends/destination` judges backends by them. They are looked up anew each time, because
listeners and addresses change while the proxy runs. Where the kernel does not tell the addresses of
this host, only those of loopback and of listeners are known.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from edgeproxy.core.backends.destination import Own
from edgeproxy.core.geo.address import normalise
from edgeproxy.engine.host_addresses import host_addresses
from edgeproxy.log import EventLog

log = EventLog("listeners")


class OwnAddresses:
    """The addresses of one proxy. For any thread."""

    def __init__(self, sockets: Callable[[], Mapping[str, socket.socket]]) -> None:
        """`sockets` returns all listening sockets, by what each is to people."""
        self._sockets = sockets
        self._has_told = False

    def look(self) -> Own:
        """Return what is so now."""
        places: dict[tuple[str, int], str] = {}
        for what, listening in self._sockets().items():
            try:
                place = _place_of(listening)
            except OSError:  # it has just been closed
                continue
            if place is not None:
                places.setdefault(place, what)
        hosts = host_addresses()
        if hosts is None and not self._has_told:
            self._has_told = True
            log.warning(
                "host_addresses_unknown",
                hint="a backend at another address of this host is not recognised as this proxy; "
                "allow AF_NETLINK",
            )
        return Own(places, hosts or frozenset())


def _place_of(listening: socket.socket) -> tuple[str, int] | None:
    """Return the address and port of a socket; None for one that is reached by a path."""
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port = listening.getsockname()[:2]
    return normalise(host), port
