"""Where to find a cluster: names or addresses of some of its members.

Names are looked up again and again, since the machines behind them change; all addresses of a name
count. A name that cannot be looked up keeps the addresses it had.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from edgeproxy.cluster.settings import Peer
from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.errors import reason_of

LOOKUP_SECS = 30.0
FIRST_RETRY_SECS = 1.0
LOOKUP_TIMEOUT_SECS = 10.0
"""How often names are looked up, how soon again after a failure at first, and for how long each."""

Take = Callable[[list[Address]], object]


class Bootstrap:
    """Looks up the peers.

    Attributes:
        failures: Why a peer could not be looked up the last time.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        self.failures: dict[Peer, str] = {}
        self._found: dict[Peer, list[Address]] = {peer: [] for peer in peers}
        self._is_due = asyncio.Event()

    def add(self, peer: Peer) -> None:
        """Look up this one, too, from the next time on."""
        self._found.setdefault(peer, [])
        self._is_due.set()

    async def follow(self, take: Take) -> None:
        """Call `take` with all addresses each time a name was looked up; for ever."""
        retry_secs = FIRST_RETRY_SECS
        while True:
            await asyncio.gather(*(self._look_up(peer, take) for peer in list(self._found)))
            self._is_due.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_secs if self.failures else LOOKUP_SECS):
                    await self._is_due.wait()
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
