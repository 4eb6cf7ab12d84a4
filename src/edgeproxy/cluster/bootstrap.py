"""Where to find a cluster: names or addresses of some of its members.

Names are looked up again and again, since the machines behind them change; all addresses of a name
count. A name that cannot be looked up keeps the addresses it had.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.errors import reason_of
from edgeproxy.host_name import host_name
from edgeproxy.values import BadValueError

LOOKUP_SECS = 30.0
FIRST_RETRY_SECS = 1.0
LOOKUP_TIMEOUT_SECS = 10.0
"""How often names are looked up, how soon again after a failure at first, and for how long each."""

_ALLOWED = (
    "allowed are NAME:PORT or ADDRESS:PORT with commas between, such as pop1.example.com:4001"
)

Take = Callable[[list[Address]], object]


class Peer(NamedTuple):
    """A name or IP address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bootstrap_peers(text: str) -> tuple[Peer, ...]:
    """Return the peers that a setting names. Raises BadValueError."""
    entries = (entry.strip() for entry in text.split(","))
    return tuple(_peer(entry) for entry in entries if entry)


class Bootstrap:
    """Looks up the peers.

    Attributes:
        failures: Why a peer could not be looked up the last time.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        self.failures: dict[Peer, str] = {}
        self._found: dict[Peer, list[Address]] = {peer: [] for peer in peers}

    async def follow(self, take: Take) -> None:
        """Call `take` with all addresses each time a name was looked up; for ever."""
        retry_secs = FIRST_RETRY_SECS
        while True:
            await asyncio.gather(*(self._look_up(peer, take) for peer in self._found))
            await asyncio.sleep(retry_secs if self.failures else LOOKUP_SECS)
            retry_secs = min(2 * retry_secs, LOOKUP_SECS) if self.failures else FIRST_RETRY_SECS

    async def _look_up(self, peer: Peer, take: Take) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_SECS):
                found = await loop.getaddrinfo(*peer, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            self.failures[peer] = reason_of(error)
            return
        self.failures.pop(peer, None)
        self._found[peer] = [Address(str(each[4][0]), int(each[4][1])) for each in found]
        take(list(dict.fromkeys(each for found in self._found.values() for each in found)))


def _peer(entry: str) -> Peer:
    host, colon, port = entry.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536
    if not colon or not is_port or len(port) > 5:
        raise BadValueError(f"{entry!r} has no port; {_ALLOWED}")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Peer(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise BadValueError(f"{entry!r} is no address; {_ALLOWED}") from None
    try:
        return Peer(str(ipaddress.IPv4Address(host)), int(port))
    except ValueError:
        name = host_name(host)
    if name is None:
        raise BadValueError(f"{entry!r} is no name; {_ALLOWED}")
    return Peer(name, int(port))
