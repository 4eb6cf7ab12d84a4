"""Nodes and the links between them, on one thread, with an oracle of what every node must show."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import count
from random import Random

from edgeproxy.core.cluster.cells import ALIVE, LIFE, Cell, is_tombstone, shown
from edgeproxy.core.cluster.messages import Message, Push, Send
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.rows import TABLES, Edit, Key, Value, Values
from edgeproxy.core.cluster.store import MemoryStore, Store
from edgeproxy.core.cluster.vectors import Vector, seq_of

START_MS = 1_800_000_000_000
SYNC_MS = 1_000


class Network:
    """Some nodes, each with a session with each other, over links that may be cut.

    Attributes:
        writes: The cells of all transactions, as their writers pushed them.
    """

    def __init__(self, names: str, seed: int = 0) -> None:
        self.rng = Random(seed)
        self.now_ms = START_MS
        self.skew_ms = dict.fromkeys(names, 0)
        self.writes: list[Cell] = []
        self.queue: deque[tuple[str, str, Message]] = deque()
        self.cut: set[frozenset[str]] = set()
        self.sent = 0
        self._earlier: list[Replica] = []
        self._numbers = count(1)
        self.stores: dict[str, Store] = {name: MemoryStore() for name in names}
        self.nodes = {name: self.start(name) for name in names}
        for name in names:
            for other in names:
                if name != other:
                    self.send(name, self.nodes[name].joined(other, self.clock(name)))

    def new_origin(self) -> bytes:
        return next(self._numbers).to_bytes(16)

    def start(self, name: str) -> Replica:
        return Replica(self.stores[name], self.new_origin)

    def store_of(self, name: str) -> MemoryStore:
        store = self.stores[name]
        assert isinstance(store, MemoryStore)
        return store

    def clock(self, name: str) -> int:
        return self.now_ms + self.skew_ms[name]

    def restart(self, name: str, is_stopped: bool) -> None:
        if is_stopped:
            self.nodes[name].stop()
        self._earlier.append(self.nodes[name])
        self.nodes[name] = self.start(name)
        for other in self.nodes:
            if other != name:
                self.nodes[other].left(name)
                self.meet(name, other)

    def meet(self, one: str, other: str) -> None:
        """Begin a session."""
        self.cut.discard(frozenset((one, other)))
        for name, peer in ((one, other), (other, one)):
            self.send(name, self.nodes[name].joined(peer, self.clock(name)))

    def part(self, one: str, other: str, is_noticed: bool = True) -> None:
        """Cut a link; who does not notice sends on."""
        self.cut.add(frozenset((one, other)))
        if is_noticed:
            self.nodes[one].left(other)
            self.nodes[other].left(one)

    def send(self, name: str, sends: Iterable[Send]) -> None:
        for peer, message in sends:
            if isinstance(message, Push) and peer is None:
                self.writes += message.cells
            for other in self.nodes if peer is None else [peer]:
                if other != name and frozenset((name, other)) not in self.cut:
                    self.sent += 1
                    self.queue.append((name, other, message))

    def write(self, name: str, *edits: Edit) -> None:
        self.send(name, self.nodes[name].write(edits, "", self.clock(name)))

    def deliver(self, loss: float = 0.0, disorder: float = 0.0) -> None:
        """Deliver all that is under way, and what follows from it."""
        while self.queue:
            if self.rng.random() < disorder:
                self.queue.rotate(-self.rng.randrange(len(self.queue)))
            name, other, message = self.queue.popleft()
            if self.rng.random() < loss:
                continue
            if self.rng.random() < disorder:
                self.queue.append((name, other, message))
            if frozenset((name, other)) not in self.cut:
                self.send(other, self.nodes[other].receive(name, message, self.clock(other)))

    def tick(self, times: int = 1, ms: int = SYNC_MS) -> None:
        for _ in range(times):
            self.now_ms += ms
            for name, node in self.nodes.items():
                self.send(name, node.tick(self.clock(name), self.rng))
            self.deliver()

    def rows(self, name: str) -> dict[Key, Values]:
        changed = self.stores[name].changed_after(0)
        return {row.key: row.values for row in changed if row.values is not None}

    def expected(self, vector: Vector) -> dict[Key, Values]:
        """Return what the newest of the writes are that a vector covers, computed from scratch."""
        seen = [cell for cell in self.writes if cell.seq <= seq_of(vector, cell.origin)]
        newest: dict[tuple[Key, str], Cell] = {}
        for cell in sorted(seen, key=lambda cell: (cell.stamp, cell.origin)):
            newest[cell.key, cell.group] = cell
        rows: dict[Key, Values] = {}
        for (key, group), life in newest.items():
            if group == LIFE and life.values == ALIVE:
                columns: dict[str, Value] = {}
                for name, of_group in TABLES[key.table].groups.items():
                    columns |= zip(of_group, newest[key, name].values, strict=True)
                rows[key] = columns
        return rows

    def check(self) -> None:
        """Assert what must always be."""
        by_past: dict[tuple[bytes, bytes], tuple[str, bytes]] = {}
        for name, node in self.nodes.items():
            assert self.rows(name) == self.expected(node.copy.vector), name
            past = (node.copy.vector_id, node.copy.generation_id)
            known, digest = by_past.setdefault(past, (name, node.copy.digest))
            assert digest == node.copy.digest, (name, known)
            for cell in self.stores[name].tombstones():
                assert is_tombstone(cell)
                assert cell.seq > node.copy.generation.get(cell.origin, 0)

    def check_equal(self) -> None:
        """Assert that all nodes have all."""
        self.check()
        assert len({node.copy.vector_id for node in self.nodes.values()}) == 1
        assert len({node.copy.generation_id for node in self.nodes.values()}) == 1

    def total(self, counter: str) -> int:
        every = (*self._earlier, *self.nodes.values())
        return sum(getattr(node.counters, counter) for node in every)


def value_of(network: Network, name: str, key: Key) -> Values | None:
    return shown(key, network.stores[name].row(key))
