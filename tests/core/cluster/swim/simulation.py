"""A cluster of membership machines in virtual time: one seed decides all that happens.

Messages are late, lost and repeated, nodes crash, stand still and start anew, and links fail. What
is sent is encoded, and some of it decoded again, so that nothing is sent that others refuse.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edgeproxy.core.cluster.swim.events import Event, EventKind
from edgeproxy.core.cluster.swim.membership import Membership
from edgeproxy.core.cluster.swim.records import Address, Record, State
from edgeproxy.core.cluster.swim.tuning import Tuning
from edgeproxy.core.cluster.swim.voice import Send
from edgeproxy.wire.gossip import decode, encode

TRANSPORT_PORT = 4002


def address_of(number: int) -> Address:
    return Address(f"10.0.{number // 250}.{number % 250 + 1}", 4001)


def record_of(number: int, instance: int = 1, address: Address | None = None) -> Record:
    gossip = address or address_of(number)
    transport = Address(gossip.host, TRANSPORT_PORT)
    return Record(f"node-{number}", instance, 0, State.ALIVE, "eu", gossip, transport)


@dataclass
class Node:
    """One process. It stands still until `resumes_at`, and hears everything late by `slow_secs`.

    `loses_backlog`: what came while it stood still is lost, as when a machine is paused.
    """

    number: int
    instance: int
    address: Address
    membership: Membership
    clock_ms: int = 0
    is_up: bool = True
    resumes_at: float = 0.0
    slow_secs: float = 0.0
    loses_backlog: bool = False
    events: list[tuple[float, Event]] = field(default_factory=list)
    backlog: list[tuple[Address, int, Send]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.membership.me.node_id


@dataclass
class Network:
    """What happens to messages: one-way delays, and the part that is lost."""

    least_secs: float = 0.005
    most_secs: float = 0.075
    loss: float = 0.0
    repeats: float = 0.0


class Simulation:
    """`nodes` by their address. `cut` says which pairs of numbers do not hear each other."""

    def __init__(
        self, seed: int, network: Network | None = None, tuning: Tuning | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.network = network or Network()
        self.tuning = tuning or Tuning()
        self.now = 1_000.0
        self.nodes: dict[Address, Node] = {}
        self.all_nodes: list[Node] = []
        self.cut: Callable[[int, int], bool] = lambda _one, _other: False
        self.sent_bytes = 0
        self.sent = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, time: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time, next(self._order), do))

    def run(self, secs: float) -> None:
        end = self.now + secs
        while self._queue and self._queue[0][0] <= end:
            self.now, _, do = heapq.heappop(self._queue)
            do()
        self.now = end

    def run_until(self, condition: Callable[[], bool], most_secs: float) -> float:
        """Return after how long the condition held; fail if it never did."""
        start = self.now
        while not condition():
            assert self.now - start < most_secs, f"not within {most_secs} s"
            self.run(self.tuning.period_secs / 10)
        return self.now - start

    def start(
        self,
        number: int,
        contacts: Iterable[Address] = (),
        instance: int = 1,
        address: Address | None = None,
        known: Iterable[Record] = (),
    ) -> Node:
        """Start a process; the one that had the address is gone."""
        me = record_of(number, instance, address)
        rng = random.Random(self.rng.getrandbits(64))
        membership = Membership(me, self.tuning, rng, self.now, known)
        membership.meet(contacts, self.now)
        node = Node(number, instance, me.gossip, membership)
        if me.gossip in self.nodes:
            self.nodes[me.gossip].is_up = False
        self.nodes[me.gossip] = node
        self.all_nodes.append(node)
        self.at(self.now + self.rng.random() * self.tuning.tick_secs, lambda: self._tick(node))
        return node

    def cluster(self, size: int) -> list[Node]:
        """Start a cluster whose members all know the first two, and let them meet."""
        contacts = [address_of(0), address_of(1)]
        nodes = [self.start(number, contacts) for number in range(size)]
        self.run_until(lambda: self.is_whole(nodes), 120)
        self.run(5)
        return nodes

    def is_whole(self, nodes: list[Node]) -> bool:
        return all(
            {member.record.node_id for member in node.membership.roster.live()} | {node.id}
            == {each.id for each in nodes}
            for node in nodes
        )

    def pause(self, node: Node, secs: float) -> None:
        node.resumes_at = self.now + secs

    def crash(self, node: Node) -> None:
        node.is_up = False

    def holds(self, node: Node, other: Node) -> State | None:
        """What a node holds another one to be."""
        member = node.membership.roster.members.get(other.id)
        return None if member is None else member.state

    def events(self, kind: EventKind) -> list[tuple[float, Node, Event]]:
        return [
            (at, node, event)
            for node in self.all_nodes
            for at, event in node.events
            if event.kind is kind
        ]

    def _wall_ms(self, node: Node) -> int:
        return 1_700_000_000_000 + int(self.now * 1000) + node.clock_ms

    def _tick(self, node: Node) -> None:
        if not node.is_up:
            return
        if node.resumes_at > self.now:
            self.at(node.resumes_at, lambda: self._tick(node))
            return
        for source, instance, send in node.backlog:
            self._receive(node, source, instance, send)
        node.backlog.clear()
        self._act(node, node.membership.tick(self.now, self._wall_ms(node)))
        self.at(self.now + self.tuning.tick_secs, lambda: self._tick(node))

    def _act(self, node: Node, sends: list[Send]) -> None:
        node.events += [(self.now, event) for event in node.membership.take_events()]
        for send in sends:
            encoded = encode(send.message)
            self.sent += 1
            self.sent_bytes += len(encoded)
            if self.sent % 16 == 0:
                assert decode(encoded) == send.message
            times = 1 + (self.rng.random() < self.network.repeats)
            for _ in range(times):
                self._carry(node, send)

    def _carry(self, node: Node, send: Send) -> None:
        target = self.nodes.get(send.address)
        if target is None or self.rng.random() < self.network.loss:
            return
        if self.cut(node.number, target.number):
            return
        delay = self.rng.uniform(self.network.least_secs, self.network.most_secs)
        delay += target.slow_secs
        source, instance = node.address, node.instance
        self.at(self.now + delay, lambda: self._arrive(send, source, instance))

    def _arrive(self, send: Send, source: Address, instance: int) -> None:
        target = self.nodes.get(send.address)
        if target is None or not target.is_up:
            return
        if target.resumes_at > self.now:
            if not target.loses_backlog and len(target.backlog) < 200:
                target.backlog.append((source, instance, send))
            return
        self._receive(target, source, instance, send)

    def _receive(self, node: Node, source: Address, instance: int, send: Send) -> None:
        wall_ms = self._wall_ms(node)
        sends = node.membership.receive(self.now, wall_ms, source, instance, send.message)
        self._act(node, sends)
