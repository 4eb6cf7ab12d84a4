"""Carries frames between the nodes of a cluster: one session with each, over QUIC.

The port that the rest of the agent uses: it says whom to be connected with and sends opaque frames;
it is told of sessions and frames. All of it belongs to one event loop. Frames of a session arrive
once and in order, from its beginning; what was under way when it ended may be lost, so whoever
relies on all of them asks again when the next one begins.

Every session is authenticated both ways (`cluster.sessions.auth`) before anything else is said.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edgeproxy.cluster.sessions.auth import LIMIT_SECS, Identity, Ring
from edgeproxy.cluster.sessions.dials import Dial, Dials, SocketAddress
from edgeproxy.cluster.sessions.quic import configuration
from edgeproxy.cluster.sessions.quic.endpoint import Endpoint
from edgeproxy.cluster.sessions.quic.link import Link
from edgeproxy.cluster.sessions.refusals import NO_PLACE, Refusals
from edgeproxy.cluster.sessions.session import End, Session
from edgeproxy.core.cluster.sessions.strangers import Strangers
from edgeproxy.errors import EdgeProxyError, reason_of
from edgeproxy.log import EventLog
from edgeproxy.values import ListenAddress

MAX_STRANGERS = 32
MAX_STRANGERS_OF_ADDRESS = 8
DOUBT_SECS = 1.5
"""A session that does not answer for so long gives way to a new one with the same node."""

_LOG = EventLog("cluster")


class TransportError(EdgeProxyError):
    """The address for other nodes cannot be listened on."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """One session as operators see it.

    Attributes:
        address: Where the peer is now.
        dialled: Whether this node has dialled.
        version: Of the protocol.
        key_id: Which key of the ring the peer has used.
        since: When it began, in the time of the loop.
        rtt_secs: As measured last; None before.
        waiting_bytes: What the peer has not dealt with yet.
    """

    address: str
    dialled: bool
    version: int
    key_id: bytes
    since: float
    rtt_secs: float | None
    waiting_bytes: int


class Transport:
    """The sessions of this node.

    Args:
        me: Who this node is.
        on_joined: A session with this node has begun.
        on_frame: A frame of this node has come. It must not wait.
        on_left: The session has ended, and why.
    """

    def __init__(
        self,
        me: Identity,
        on_joined: Callable[[str], object],
        on_frame: Callable[[str, bytes], object],
        on_left: Callable[[str, str], object],
        rng: random.Random | None = None,
    ) -> None:
        self._me = me
        self._on_joined = on_joined
        self._on_frame = on_frame
        self._on_left = on_left
        self._loop = asyncio.get_running_loop()
        self._endpoints: dict[int, Endpoint] = {}
        self._sessions: dict[str, Session] = {}
        self._rivals: dict[str, Session] = {}  # each waits whether the session of its peer answers
        self._open: dict[Session, Dial | int] = {}  # what it was dialled for, or its place
        self._strangers = Strangers(MAX_STRANGERS, MAX_STRANGERS_OF_ADDRESS, LIMIT_SECS)
        self._refusals = Refusals()
        self._dials = Dials(self._begin, self._sessions.__contains__, rng or random.SystemRandom())

    @property
    def refused(self) -> Mapping[str, int]:
        """How many were refused since the start, by reason."""
        return self._refusals.counts

    async def listen(self, address: ListenAddress) -> ListenAddress:
        """Let other nodes in from now on; return the address. Raises TransportError."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            udp.bind(tuple(address))
        except OSError as error:
            udp.close()
            raise TransportError(
                f"cannot listen for other nodes on {address}: {reason_of(error)}; end what uses "
                "this UDP port, or set EDGEPROXY_REPLICATION_TRANSPORT_ADDR to another one"
            ) from error
        # It takes some milliseconds, which the sessions that there are need not wait for.
        answering = await asyncio.to_thread(configuration.answering, time.time())
        assert family not in self._endpoints, "listen before you connect"
        endpoint = self._endpoints[family] = Endpoint(udp, answering, self._admit, self._answer)
        return ListenAddress(*endpoint.address[:2])

    def connect(self, peer_id: str, address: str) -> None:
        """Keep a session with this node, at `host:port`. Again with another address: it moved."""
        self._dials.want(peer_id, address)

    def introduce(self, address: str) -> None:
        """Dial an address once. Whichever node answers is told of by `on_joined`."""
        self._dials.introduce(address)

    def disconnect(self, peer_id: str) -> None:
        """Dial this node no more, and end the session with it. It may come back by itself."""
        self._dials.unwant(peer_id)
        for session in list(self._open):
            if session.peer is not None and session.peer.node_id == peer_id:
                session.close("this node wants no session")

    def send(self, peer_id: str, frame: bytes) -> bool:
        """Send a frame of at most 1 MiB; False if there is no session, or no room in its queue.

        Raises WireError if it is longer.
        """
        session = self._sessions.get(peer_id)
        return session is not None and session.send(frame)

    def hold(self, peer_id: str, is_held: bool) -> None:
        """Have the frames of this node wait, or come again, until the end of its session.

        When its window is full, they wait at the other end. `on_frame` may call this.
        """
        session = self._sessions.get(peer_id)
        if session is not None:
            session.hold(is_held)

    def sessions(self) -> Mapping[str, SessionState]:
        """Return the sessions by node."""
        return {peer_id: self._state_of(each) for peer_id, each in self._sessions.items()}

    def keys_changed(self, ring: Ring) -> None:
        """Use these keys from now on. Sessions that may rest on a key that is gone end."""
        gone = {key.id for key in self._me.ring} - {key.id for key in ring}
        self._me = replace(self._me, ring=ring)
        for session in list(self._open):
            if gone and (session.peer is None or session.peer.key_id in gone):
                session.close("its key has been removed")

    async def close(self) -> None:
        """End all sessions and close the sockets."""
        self._dials.close()
        for session in list(self._open):
            session.close("the node stops")
        for endpoint in self._endpoints.values():
            endpoint.close()
        self._endpoints.clear()

    def proved(self, session: Session) -> None:
        """See `session.Host`."""
        assert session.peer is not None
        origin = self._open[session]
        if isinstance(origin, int):
            self._strangers.proved(origin)
        if not session.is_chooser:
            return
        peer_id = session.peer.node_id
        present = self._sessions.get(peer_id)
        if present is None:
            session.join()
            self._use(session)
            return
        # Either both have dialled at once, or the peer has lost the session that is here.
        rival = self._rivals.pop(peer_id, None)
        if rival is not None:
            rival.close("a newer one has come")
        self._rivals[peer_id] = session
        present.link.ping(lambda: self._answered(peer_id, session))
        self._loop.call_later(DOUBT_SECS, self._not_answered, peer_id, session, present)

    def joined(self, session: Session) -> None:
        """See `session.Host`."""
        assert session.peer is not None
        present = self._sessions.get(session.peer.node_id)
        if present is not None:
            present.close("another session is used")
        self._use(session)

    def arrived(self, session: Session, frame: bytes) -> None:
        """See `session.Host`."""
        assert session.peer is not None
        self._on_frame(session.peer.node_id, frame)

    def over(self, session: Session, end: End) -> None:
        """See `session.Host`."""
        origin = self._open.pop(session)
        if isinstance(origin, int):
            self._strangers.ended(origin)
        now = self._loop.time()
        held_secs = None
        if end.refusal is not None:
            self._refusals.note(end.refusal, _text(session.link.address), now)
        peer_id = session.peer.node_id if session.peer is not None else ""
        if self._rivals.get(peer_id) is session:
            del self._rivals[peer_id]
        if self._sessions.get(peer_id) is session:
            del self._sessions[peer_id]
            held_secs = now - session.joined_at
            _LOG.info("replication_peer_left", peer=peer_id, reason=end.why)
            self._on_left(peer_id, end.why)
            rival = self._rivals.pop(peer_id, None)
            if rival is not None:
                rival.join()
                self._use(rival)
        self._dials.over(origin if isinstance(origin, Dial) else None, session, end.why, held_secs)

    def _use(self, session: Session) -> None:
        assert session.peer is not None
        peer_id = session.peer.node_id
        self._sessions[peer_id] = session
        self._dials.joined(peer_id, session)
        _LOG.info("replication_peer_joined", peer=peer_id, address=_text(session.link.address))
        self._on_joined(peer_id)

    def _answered(self, peer_id: str, rival: Session) -> None:
        if self._rivals.get(peer_id) is rival:
            rival.close("another session is used")

    def _not_answered(self, peer_id: str, rival: Session, present: Session) -> None:
        if self._rivals.get(peer_id) is rival:
            present.close("it does not answer, and the node has come back")

    def _begin(self, dial: Dial, family: int, address: SocketAddress) -> Session:
        endpoint = self._endpoints.get(family)
        if endpoint is None:
            udp = socket.socket(family, socket.SOCK_DGRAM)
            udp.bind(("", 0))
            endpoint = self._endpoints[family] = Endpoint(udp, None, self._admit, self._answer)
        link = endpoint.link()
        session = Session(self._me, link, self, dialled=True, expected=dial.peer_id)
        self._open[session] = dial
        link.dial(address)
        return session

    def _admit(self, address: SocketAddress) -> int | None:
        now = self._loop.time()
        place = self._strangers.admit(address[0], now)
        if place is None:
            self._refusals.note(NO_PLACE, _text(address), now)
        return place

    def _answer(self, link: Link, place: int) -> None:
        self._open[Session(self._me, link, self, dialled=False)] = place

    def _state_of(self, session: Session) -> SessionState:
        assert session.peer is not None
        return SessionState(
            _text(session.link.address),
            session.dialled,
            session.peer.version,
            session.peer.key_id,
            session.joined_at,
            session.link.rtt_secs,
            session.outflow.waiting_bytes,
        )


def _text(address: SocketAddress) -> str:
    return str(ListenAddress(*address[:2])) if address else ""
