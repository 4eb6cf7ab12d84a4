"""One QUIC connection to another node, and the one stream on it.

The endpoint hands it the datagrams of the peer and sends its own. Bytes arrive in order and once,
`on_bytes` at a time. Nothing holds them back here: `sessions.session` bounds what is sent and what
is waiting. The end comes once, unless this end has closed.

Until `trust`, the peer is a stranger, and may send only as many datagrams as a proof needs: aioquic
reserves memory for what a peer announces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from aioquic.quic import events
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.packet import QuicErrorCode

from edgeproxy.cluster.sessions.quic.channel import Channel
from edgeproxy.log import EventLog

MAX_DATAGRAMS_OF_STRANGER = 8
"""After the handshake. A proof needs one or two. Each can double what is reserved, from 1 KiB."""

TRUSTED_BYTES = 4 << 20
"""What a node may send at first. `sessions.session` allows less to be under way."""

LONGEST_PROBE_SECS = 0.5
"""Data that is not acknowledged is sent again after twice the last time, but not after longer than
this, or one round trip: a few lost datagrams, or a link that was cut, cost no more than that."""

REPEATS_SECS = (0.04, 0.2)
"""When a datagram with something new goes again, as it is. The other end drops what it has. So news
arrives although a part of all datagrams is lost, and waits for no round trip."""
MAX_REPEATS = 64
"""Datagrams that wait to go again: many at once are found missing by those that arrive."""

_STREAM = 0  # the first one that the end opens which has dialled
_IS_LONG = 0x80
_LOG = EventLog("cluster")


class Wire(Protocol):
    """What a link needs of its endpoint."""

    def send(self, datagram: bytes, address: NetworkAddress) -> None:
        """Send a datagram, or drop it."""

    def register(self, connection_id: bytes, link: Link) -> None:
        """Hand the link the datagrams with this id."""

    def forget(self, connection_ids: set[bytes]) -> None:
        """Drop the datagrams with these ids."""


class Uses(NamedTuple):
    """Whom a link tells: that the handshake is complete, of bytes, and of its end.

    `on_gone` is told what the peer or aioquic says of it, `on_fault` why this end had to close.
    """

    on_ready: Callable[[], None]
    on_bytes: Callable[[bytes], None]
    on_gone: Callable[[str], None]
    on_fault: Callable[[str], None]


class Link:
    """One connection.

    Attributes:
        uses: Set before the first datagram.
        heard_at: When the peer was heard of last, in the time of the loop.
        rtt_secs: As the last ping measured it.
    """

    def __init__(self, quic: QuicConnection, channel: Channel, wire: Wire, ids: set[bytes]) -> None:
        self.uses: Uses
        self.heard_at = 0.0
        self.rtt_secs: float | None = None
        self._quic = quic
        self._channel = channel
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._ids = {quic.host_cid, *ids}
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._pings: dict[int, tuple[float, Callable[[], None]]] = {}
        self._pinged = 0
        self._is_trusted = False
        self._has_news = False
        self._repeats = 0
        self._datagrams_of_stranger = 0
        self._is_closed = False
        for each in self._ids:
            wire.register(each, self)

    @property
    def channel(self) -> bytes:
        """The value that ties a proof to this connection, once it is ready."""
        return self._channel.value()

    @property
    def address(self) -> NetworkAddress | None:
        """Where the peer is now."""
        return self._quic.get_peer_address()

    def dial(self, address: NetworkAddress) -> None:
        """Begin the handshake."""
        self._quic.connect(address, now=self._loop.time())
        self.settle()

    def trust(self) -> None:
        """Bound the datagrams of the peer no longer: it is a node of the cluster.

        It may also send much at once. Otherwise the limit would double with each round trip.
        """
        self._is_trusted = True
        self._quic._local_max_data.value = TRUSTED_BYTES
        stream = self._quic._streams[_STREAM]
        stream.max_stream_data_local = TRUSTED_BYTES
        self._settle_soon()

    def receive(self, datagram: bytes, address: NetworkAddress) -> None:
        """Take a datagram. What follows from it comes with `settle`."""
        if self._is_closed:
            return
        if not self._is_trusted and not datagram[0] & _IS_LONG:
            self._datagrams_of_stranger += 1
            if self._datagrams_of_stranger > MAX_DATAGRAMS_OF_STRANGER:
                self._end("it sends more than a proof needs")
                return
        self.heard_at = self._loop.time()
        self._guarded(lambda: self._quic.receive_datagram(datagram, address, self.heard_at))

    def settle(self) -> None:
        """Tell what has happened, and send what is to be sent."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._guarded(self._settle)

    def write(self, data: bytes) -> None:
        """Send bytes, soon."""
        if not self._is_closed:
            self._quic.send_stream_data(_STREAM, data)
            self._has_news = True
            self._settle_soon()

    def ping(self, answered: Callable[[], None] = lambda: None) -> None:
        """Have the peer answer, which also keeps the connection."""
        if not self._is_closed:
            self._pinged += 1
            self._pings[self._pinged] = (self._loop.time(), answered)
            self._quic.send_ping(self._pinged)
            self._settle_soon()

    def close(self, reason: str = "") -> None:
        """End the connection at once. What has not been sent yet is lost."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._quic.close(QuicErrorCode.NO_ERROR, reason_phrase=reason)
            for datagram, address in self._quic.datagrams_to_send(now=self._loop.time()):
                self._wire.send(datagram, address)
        except Exception:  # noqa: BLE001
            _LOG.bug("replication_link_failed")
        self._drop()

    def _settle_soon(self) -> None:
        if self._soon is None:
            self._soon = self._loop.call_soon(self.settle)

    def _settle(self) -> None:
        while not self._is_closed and (event := self._quic.next_event()) is not None:
            self._take(event)
        if not self._is_closed:
            self._transmit()

    def _take(self, event: events.QuicEvent) -> None:
        match event:
            case events.StreamDataReceived(stream_id=stream, end_stream=is_end, data=data):
                if stream != _STREAM or is_end:
                    self._end("it uses QUIC in another way")
                else:
                    self.uses.on_bytes(data)
            case events.HandshakeCompleted():
                self.uses.on_ready()
            case events.PingAcknowledged(uid=uid):
                sent_at, answered = self._pings.pop(uid)
                self.rtt_secs = self._loop.time() - sent_at
                answered()
            case events.ConnectionIdIssued(connection_id=issued):
                self._ids.add(issued)
                self._wire.register(issued, self)
            case events.ConnectionIdRetired(connection_id=retired):
                self._ids.discard(retired)
                self._wire.forget({retired})
            case events.ConnectionTerminated(reason_phrase=reason):
                self._drop()
                self.uses.on_gone(reason)
            case events.StreamReset() | events.StopSendingReceived():
                self._end("it uses QUIC in another way")

    def _transmit(self) -> None:
        datagrams = self._quic.datagrams_to_send(now=self._loop.time())
        for datagram, address in datagrams:
            self._wire.send(datagram, address)
        if self._has_news and len(datagrams) == 1:
            self._send_again(*datagrams[0])
        self._has_news = False
        at = self._quic.get_timer()
        if self._timer is None or self._timer.when() != at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if at is None else self._loop.call_at(at, self._wake)

    def _send_again(self, datagram: bytes, address: NetworkAddress) -> None:
        if self._is_trusted and self._repeats < MAX_REPEATS:
            for secs in REPEATS_SECS:
                self._repeats += 1
                self._loop.call_later(secs, self._repeat, datagram, address)

    def _repeat(self, datagram: bytes, address: NetworkAddress) -> None:
        self._repeats -= 1
        if not self._is_closed:
            self._wire.send(datagram, address)

    def _wake(self) -> None:
        self._timer = None
        self._guarded(lambda: self._quic.handle_timer(now=self._loop.time()))
        self._has_news |= bool(self._quic._loss._pto_count)  # nobody has answered
        self._guarded(self._probe_soon)
        self.settle()

    def _probe_soon(self) -> None:
        """Bound the back-off, for which aioquic has no setting."""
        recovery = self._quic._loss
        while (
            recovery._pto_count
            and recovery.get_probe_timeout() * 2**recovery._pto_count > LONGEST_PROBE_SECS
        ):
            recovery._pto_count -= 1

    def _guarded(self, step: Callable[[], None]) -> None:
        """A bug that a datagram brings to light costs this connection and no other."""
        try:
            step()
        except Exception:  # noqa: BLE001
            _LOG.bug("replication_link_failed")
            self._end("of a bug, which the log shows")

    def _end(self, why: str) -> None:
        if not self._is_closed:
            self.close()
            self.uses.on_fault(why)

    def _drop(self) -> None:
        self._is_closed = True
        self._wire.forget(self._ids)
        self._pings.clear()
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None
