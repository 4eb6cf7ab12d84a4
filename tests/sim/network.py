"""Datagrams and sessions between POPs: late, lost, repeated, cut off, broken.

Datagrams overtake each other. The frames of a session come once and in order while it lasts; what
is under way when it ends is lost, and its two ends learn of that at different times.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.values import ListenAddress
from tests.sim.loop import Scheduler

REGIONS = ("sa", "us", "eu", "ap", "af")
IDLE_SECS = 5.0
"""After so long without a way, a session ends."""
DIAL_AGAIN_SECS = 1.0
MOST_WAITING = 200
"""Datagrams that a socket holds for a process that stands still."""


class Host(Protocol):
    """A process with its sockets."""

    name: str
    region: str
    number: int
    transport: Transport
    udp: Udp

    @property
    def is_up(self) -> bool: ...
    @property
    def is_paused(self) -> bool: ...
    def later(self, secs: float, do: Callable[[], object]) -> None: ...


@dataclass(eq=False)
class Session:
    """A session between two processes. Its frames wait by the name of who is to hear them."""

    ends: tuple[Host, Host]
    transports: tuple[Transport, Transport]
    is_broken: bool = False
    frames: dict[str, deque[bytes]] = field(default_factory=dict)
    free_at: dict[str, float] = field(default_factory=dict)

    def other(self, host: Host) -> Host:
        return self.ends[1] if host is self.ends[0] else self.ends[0]

    def transport_of(self, host: Host) -> Transport:
        return self.transports[0] if host is self.ends[0] else self.transports[1]


class Network:
    """All that is between POPs.

    Attributes:
        loss: The part of datagrams that is lost; frames come later instead.
        repeats: The part of datagrams that come twice.
        cuts: Between whom there is no way, by names, each direction for itself.
    """

    def __init__(self, scheduler: Scheduler, rng: Random) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self.loss = self.repeats = 0.0
        self.cuts: set[tuple[str, str]] = set()
        self.hosts: dict[str, Host] = {}
        self._by_address: dict[str, str] = {}
        self.sessions: dict[frozenset[str], Session] = {}
        regions = [(one, other) for one in REGIONS for other in REGIONS]
        self._secs = {pair: rng.uniform(0.02, 0.15) for pair in regions}
        self._secs |= {(one, one): 0.005 for one in REGIONS}

    def add(self, host: Host, address: str) -> None:
        """Take a process in, in place of an earlier one of that name."""
        self.hosts[host.name] = host
        self._by_address[address] = host.name

    def is_cut(self, one: str, other: str) -> bool:
        return (one, other) in self.cuts or (other, one) in self.cuts

    def cut(self, one: str, other: str, *, is_one_way: bool = False) -> None:
        self.cuts.add((one, other))
        if not is_one_way:
            self.cuts.add((other, one))
        session = self.sessions.get(frozenset((one, other)))
        if session is not None:
            self._scheduler.after(IDLE_SECS, lambda: self._give_up(session))

    def _give_up(self, session: Session) -> None:
        one, other = session.ends
        if self.is_cut(one.name, other.name):
            self.break_off(session)

    def _delay(self, one: Host, other: Host) -> float:
        secs = self._secs[min(one.region, other.region), max(one.region, other.region)]
        return secs * self._rng.uniform(1.0, 1.5)

    # -- datagrams -------------------------------------------------------------------

    def carry(self, source: Host, address: Address, datagram: bytes, to: Address) -> None:
        target = self.hosts.get(self._by_address.get(to.host, ""))
        if target is None or (source.name, target.name) in self.cuts:
            return
        for _ in range(1 + (self._rng.random() < self.repeats)):
            if self._rng.random() >= self.loss:
                delay = self._delay(source, target)
                self._scheduler.after(delay, lambda: self._arrive(target.name, datagram, address))

    def _arrive(self, name: str, datagram: bytes, source: Address) -> None:
        target = self.hosts[name]
        if target.is_up and len(target.udp.waiting) < MOST_WAITING:
            target.udp.waiting.append((datagram, source))
            if not target.is_paused:
                target.udp.wake()

    # -- sessions --------------------------------------------------------------------

    def dial(self, host: Host, transport: Transport, peer: str) -> None:
        """Try to reach a peer until there is a session, or none is wanted any more."""
        if transport.is_closed or peer not in transport.wanted or peer in transport.peers:
            return
        target = self.hosts.get(peer)
        is_there = target is not None and target.is_up and not target.is_paused
        if target is None or not is_there or self.is_cut(host.name, peer):
            host.later(DIAL_AGAIN_SECS, lambda: self.dial(host, transport, peer))
            return
        known = self.sessions.get(frozenset((host.name, peer)))
        if known is None or known.transport_of(host) is not transport:
            self._begin(host, target)

    def _begin(self, host: Host, target: Host) -> None:
        pair = frozenset((host.name, target.name))
        if pair in self.sessions:
            self.break_off(self.sessions[pair])
        session = Session((host, target), (host.transport, target.transport))
        self.sessions[pair] = session
        for secs, end in ((0.0, host), (self._delay(host, target), target)):
            session.frames[end.name] = deque()
            session.free_at[end.name] = self._scheduler.now + secs
            end.later(secs, lambda end=end: self._joined(session, end))  # type: ignore[misc]

    def _joined(self, session: Session, end: Host) -> None:
        if not session.is_broken:
            peer = session.other(end).name
            if end.transport.peers.pop(peer, None) is not None:
                end.transport.on_left(peer, "another session is used")
            end.transport.peers[peer] = session
            end.transport.on_joined(peer)

    def send(self, session: Session, source: Host, frame: bytes) -> None:
        target = session.other(source)
        delay = self._delay(source, target)
        while self._rng.random() < self.loss:
            delay += 2 * self._delay(source, target)
        at = max(self._scheduler.now + delay, session.free_at[target.name])
        session.free_at[target.name] = at
        session.frames[target.name].append(frame)
        self._scheduler.at(at, lambda: self._deliver(session, target))

    def _deliver(self, session: Session, target: Host) -> None:
        if session.is_broken:
            return
        if self.is_cut(target.name, session.other(target).name):
            self._scheduler.after(0.25, lambda: self._deliver(session, target))
            return
        frame = session.frames[target.name].popleft()
        target.later(0, lambda: self._hear(session, target, frame))

    def _hear(self, session: Session, target: Host, frame: bytes) -> None:
        peer = session.other(target).name
        if not session.is_broken and target.transport.peers.get(peer) is session:
            target.transport.on_frame(peer, frame)

    def break_off(self, session: Session) -> None:
        """End a session; who is up learns of it in some time."""
        if session.is_broken:
            return
        session.is_broken = True
        del self.sessions[frozenset(each.name for each in session.ends)]
        for end, transport in zip(session.ends, session.transports, strict=True):
            if end.is_up and end.transport is transport:
                secs = self._rng.uniform(0.0, 2.0)
                end.later(secs, lambda end=end: self._left(session, end))  # type: ignore[misc]

    def _left(self, session: Session, end: Host) -> None:
        peer = session.other(end).name
        if end.transport.peers.get(peer) is session:
            del end.transport.peers[peer]
            end.transport.on_left(peer, "it broke")
        self.dial(end, end.transport, peer)

    def gone(self, host: Host) -> None:
        """A process has ended."""
        for session in [each for each in self.sessions.values() if host in each.ends]:
            self.break_off(session)


class Transport:
    """The sessions of one process; see `cluster.sessions.transport.Transport`."""

    def __init__(
        self,
        host: Host,
        network: Network,
        on_joined: Callable[[str], object],
        on_frame: Callable[[str, bytes], object],
        on_left: Callable[[str, str], object],
    ) -> None:
        self._host = host
        self._network = network
        self.on_joined = on_joined
        self.on_frame = on_frame
        self.on_left = on_left
        self.peers: dict[str, Session] = {}
        self.wanted: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.is_closed = False

    async def listen(self, address: ListenAddress) -> ListenAddress:
        return address

    def connect(self, peer: str, _address: str) -> None:
        self.wanted.add(peer)
        self._host.later(0.1, lambda: self._network.dial(self._host, self, peer))

    def disconnect(self, peer: str) -> None:
        self.wanted.discard(peer)
        if peer in self.peers:
            self._network.break_off(self.peers[peer])

    def send(self, peer: str, frame: bytes) -> bool:
        session = self.peers.get(peer)
        if session is None or session.is_broken:
            return False
        self._network.send(session, self._host, frame)
        return True

    def sessions(self) -> Mapping[str, Any]:
        return self.peers

    def keys_changed(self, _ring: object) -> None: ...

    async def close(self) -> None:
        self.is_closed = True
        self._network.gone(self._host)


class Udp:
    """The socket for datagrams of one process; see `cluster.builtin.udp_socket.UdpSocket`."""

    def __init__(self, host: Host, network: Network, address: ListenAddress) -> None:
        self._host = host
        self._network = network
        self.address = Address(*address)
        self.waiting: deque[tuple[bytes, Address]] = deque()
        self.wake: Callable[[], object] = lambda: None

    def send(self, datagram: bytes, to: Address) -> None:
        self._network.carry(self._host, self.address, datagram, to)

    def received(self, _most_bytes: int) -> Iterator[tuple[bytes, Address]]:
        while self.waiting:
            yield self.waiting.popleft()

    def close(self) -> None:
        self.waiting.clear()
