"""The nodes that this one keeps a session with: dials each that has none, for ever.

When is decided by `core.cluster.sessions`. A node is dialled once at a time, and not while it has a
session, whoever has dialled that. An *introduction* is one dial of an address of which nobody knows
yet which node is there.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Any

from edgeproxy.cluster.sessions.session import DIAL_SECS, Session
from edgeproxy.core.cluster.sessions.dialling import STEADY_SECS, DialRate, pause_secs
from edgeproxy.errors import reason_of
from edgeproxy.log import EventLog, Throttle

LOG_SECS = 60.0
_LOG = EventLog("cluster")

SocketAddress = Any  # of aioquic and of `socket`: a tuple that depends on the family


class Dial:
    """One address that is dialled.

    Attributes:
        peer_id: The node that must answer; None for an introduction.
        session: What the dial under way has led to.
    """

    def __init__(self, peer_id: str | None, address: str) -> None:
        self.peer_id = peer_id
        self.address = address
        self.session: Session | None = None
        self.failures = 0
        self.pause: asyncio.TimerHandle | None = None
        self.resolving: asyncio.Task[None] | None = None
        self.throttle = Throttle(LOG_SECS)

    def stop(self) -> None:
        """Neither wait nor look up any longer. A session is left alone."""
        for each in (self.pause, self.resolving):
            if each is not None:
                each.cancel()
        self.pause = self.resolving = None

    @property
    def is_under_way(self) -> bool:
        """Whether it waits, looks the address up, or has a session."""
        return (self.pause, self.resolving, self.session) != (None, None, None)


class Dials:
    """All of them.

    Args:
        begin: Opens a session: with the family and the address of a socket.
        has_session: Whether there is a session with this node.
    """

    def __init__(
        self,
        begin: Callable[[Dial, int, SocketAddress], Session],
        has_session: Callable[[str], bool],
        rng: random.Random,
    ) -> None:
        self._begin = begin
        self._has_session = has_session
        self._rng = rng
        self._rate = DialRate()
        self._wanted: dict[str, Dial] = {}
        self._introductions: dict[str, Dial] = {}
        self._loop = asyncio.get_running_loop()

    def want(self, peer_id: str, address: str) -> None:
        """Keep a session with this node, which is at this address from now on.

        It has just been heard of, so a dial that waits because earlier ones failed waits no longer.
        """
        dial = self._wanted.get(peer_id)
        if dial is None:
            dial = self._wanted[peer_id] = Dial(peer_id, address)
        elif dial.address != address:
            dial.address, dial.failures = address, 0
            dial.stop()
            if dial.session is not None and not self._has_session(peer_id):
                dial.session.close("the node is at another address now")
        else:
            dial.failures = 0
            if dial.resolving is None:
                dial.stop()
        self._schedule(dial)

    def introduce(self, address: str) -> None:
        """Dial this address once, unless that is under way."""
        if address not in self._introductions:
            dial = self._introductions[address] = Dial(None, address)
            self._schedule(dial)

    def unwant(self, peer_id: str) -> None:
        """Keep no session with this node. One that there is is left alone."""
        dial = self._wanted.pop(peer_id, None)
        if dial is not None:
            dial.stop()

    def close(self) -> None:
        """Dial nobody any more."""
        for dial in (*self._wanted.values(), *self._introductions.values()):
            dial.stop()
        self._wanted.clear()
        self._introductions.clear()

    def joined(self, peer_id: str, session: Session) -> None:
        """Give a dial up: this node has got a session by another one."""
        dial = self._wanted.get(peer_id)
        if dial is not None:
            dial.stop()
            if dial.session not in (None, session):
                dial.session.close("another session is used")

    def over(self, dial: Dial | None, session: Session, why: str, held_secs: float | None) -> None:
        """Dial again, if need be, after the end of a session; it was joined for `held_secs`."""
        if dial is not None:
            dial.session = None
        peer_id = session.peer.node_id if session.peer is not None else ""
        if held_secs is not None:
            wanted = self._wanted.get(peer_id)
            if wanted is not None:
                wanted.failures = 1 if held_secs >= STEADY_SECS else wanted.failures + 1
                self._schedule(wanted)
        elif dial is not None and not self._has_session(dial.peer_id or peer_id):
            self._failed(dial, why)
        if dial is not None and dial.peer_id is None:
            self._introductions.pop(dial.address, None)

    def _failed(self, dial: Dial, why: str) -> None:
        if dial not in (*self._wanted.values(), *self._introductions.values()):
            return
        dial.failures += 1
        suppressed = dial.throttle.admit(self._loop.time())
        if suppressed is not None:
            _LOG.warning(
                "replication_peer_unreachable",
                peer=dial.peer_id or "",
                address=dial.address,
                reason=why,
                suppressed=suppressed,
                hint="look whether the other node runs, and whether UDP reaches this address",
            )
        if dial.peer_id is None:
            self._introductions.pop(dial.address, None)
        else:
            self._schedule(dial)

    def _schedule(self, dial: Dial) -> None:
        if dial.peer_id is not None:
            is_needless = self._has_session(dial.peer_id)
            if is_needless or self._wanted.get(dial.peer_id) is not dial:
                return
        if not dial.is_under_way:
            secs = pause_secs(dial.failures, self._rng)
            dial.pause = self._loop.call_later(secs, self._due, dial)

    def _due(self, dial: Dial) -> None:
        now = self._loop.time()
        dial.pause = self._loop.call_at(self._rate.next_at(now), self._start, dial)

    def _start(self, dial: Dial) -> None:
        dial.pause = None
        dial.resolving = self._loop.create_task(self._dial(dial))

    async def _dial(self, dial: Dial) -> None:
        try:
            async with asyncio.timeout(DIAL_SECS):
                family, address = await self._resolved(dial.address)
        except (OSError, TimeoutError) as error:
            dial.resolving = None
            self._failed(dial, f"the address cannot be found: {reason_of(error)}")
            return
        dial.resolving = None
        dial.session = self._begin(dial, family, address)

    async def _resolved(self, text: str) -> tuple[int, SocketAddress]:
        """Return the family and address of a socket for `host:port`. Raises OSError."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            found = socket.getaddrinfo(
                host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )
        except OSError:  # not an address: a name, which takes time
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        return found[0][0], found[0][4]
