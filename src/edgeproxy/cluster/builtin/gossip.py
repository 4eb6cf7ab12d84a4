"""Runs membership on a UDP socket: opens what comes, seals what goes, and keeps time.

What does not open, or is no message, is counted by its reason, and never answered. Nothing here
waits for a peer or a name. Time is that of the monotonic clock and not that of the loop, so that
membership sees when this process stood still.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from edgeproxy.cluster.builtin.bootstrap import Bootstrap
from edgeproxy.cluster.builtin.keys import KeyRing
from edgeproxy.cluster.builtin.sealing import MAX_BYTES, Dropped, Opener, Sealer, sender_hash
from edgeproxy.cluster.builtin.udp_socket import UdpSocket
from edgeproxy.cluster.settings import Peer
from edgeproxy.core.cluster.swim.events import Event
from edgeproxy.core.cluster.swim.membership import Membership
from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.core.cluster.swim.voice import Send
from edgeproxy.errors import WireError
from edgeproxy.wire.gossip import decode, encode

MALFORMED, MISNAMED, STALE = "malformed", "misnamed", "stale"
"""Reasons to drop beside those of `Dropped`: authentic, but no message; of another sender than it
says; of an earlier start of its sender."""


class Gossip:
    """The membership of one start of this node, on a socket.

    Attributes:
        bootstrap: The names that lead to others.
        dropped: How many datagrams were dropped, by reason.
        received: How many were heard, by the id of the key that sealed them.
        sent: How many were handed to the kernel.
        sent_bytes: How much that was.
    """

    def __init__(
        self,
        udp: UdpSocket,
        membership: Membership,
        ring: KeyRing,
        cluster: str,
        peers: Sequence[Peer],
        report: Callable[[Event], object],
        tick_secs: float,
    ) -> None:
        me = membership.me
        self.bootstrap = Bootstrap(peers)
        self.dropped: Counter[str] = Counter()
        self.received: Counter[bytes] = Counter()
        self.sent = self.sent_bytes = 0
        self._udp = udp
        self._membership = membership
        self._sealer = Sealer(ring, cluster, me.node_id, me.instance)
        self._opener = Opener(ring, cluster)
        self._report = report
        self._tick_secs = tick_secs

    def use(self, ring: KeyRing) -> None:
        """Use other keys from now on."""
        self._sealer.use(ring)
        self._opener.use(ring)

    async def run(self) -> None:
        """Take part until `Membership.leave` is done, or another process has taken the node id."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._udp, self._read)
        looking_up = loop.create_task(self.bootstrap.follow(self._meet))
        try:
            while not self._membership.is_silent:
                self._read()
                self._send(self._membership.tick(time.monotonic(), _wall_ms()))
                await asyncio.sleep(self._tick_secs)
        finally:
            loop.remove_reader(self._udp)
            looking_up.cancel()
            await asyncio.gather(looking_up, return_exceptions=True)

    def _meet(self, addresses: list[Address]) -> None:
        self._membership.meet(addresses, time.monotonic())

    def _read(self) -> None:
        for datagram, source in self._udp.received(MAX_BYTES + 1):
            self._receive(datagram, source)

    def _receive(self, datagram: bytes, source: Address) -> None:
        opened = self._opener.open(datagram)
        if isinstance(opened, Dropped):
            self.dropped[opened] += 1
            return
        try:
            message = decode(opened.body)
        except WireError:
            self.dropped[MALFORMED] += 1
            return
        if sender_hash(message.from_id) != opened.sender:
            self.dropped[MISNAMED] += 1
            return
        self.received[opened.key_id] += 1
        now, instance = time.monotonic(), opened.instance
        if opened.is_stale:
            self.dropped[STALE] += 1
            self._send(self._membership.receive_stale(now, source, message.from_id, instance))
        else:
            wall_ms = _wall_ms()
            self._send(self._membership.receive(now, wall_ms, source, instance, message))

    def _send(self, sends: list[Send]) -> None:
        for send in sends:
            datagram = self._sealer.seal(encode(send.message))
            self._udp.send(datagram, send.address)
            self.sent += 1
            self.sent_bytes += len(datagram)
        for event in self._membership.take_events():
            self._report(event)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
