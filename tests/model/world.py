"""A few replicas and all that is under way between them, as a state that can be searched.

A state is never changed: an action returns another one, which has all nodes in common that the
action does not touch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from edgeproxy.core.cluster.cells import ALIVE, LIFE, Cell, is_alive, shown
from edgeproxy.core.cluster.clock import ms_of
from edgeproxy.core.cluster.messages import Cells, Pull, Push, Reset, Send, Wanted
from edgeproxy.core.cluster.own_copy import HOUR_MS, KEEP_MS, OwnCopy
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.rows import ROUTES, Edit, Key
from edgeproxy.core.cluster.store import MemoryStore
from edgeproxy.core.cluster.vectors import Vector, seq_of

FAR_MS = 1 << 40
"""When even the newest tombstone is old."""

_PUSHES: dict[int, Push] = {}
_NUMBERS: dict[object, int] = {}


def _number_of(value: object) -> int:
    """Return a small number that stands for a value, in all states."""
    return _NUMBERS.setdefault(value, len(_NUMBERS))


class Bounds(NamedTuple):
    """How much of each may happen.

    Attributes:
        answers: Pulls that are answered, clones aside.
        begin: `nothing` is known; or `known`, a row is known to all; or `away`: then it was deleted
            by the first node, and forgotten by the second, while the third was away.
    """

    nodes: int = 3
    writes: int = 3
    answers: int = 2
    drops: int = 1
    resets: int = 1
    rows: int = 1
    begin: str = "nothing"
    jumps_ms: tuple[int, ...] = (0, 2)


class Fault(Exception):  # noqa: N818
    """What must not be has happened."""


@dataclass(slots=True)
class Node:
    """One node, what it has been answered, and a key of all that matters of it."""

    replica: Replica
    store: MemoryStore
    answer: tuple[Cells | Reset, ...]
    key: int


class Outcome(NamedTuple):
    """What an action does: the node after it, what was sent and written, how much was used up."""

    node: Node
    pushes: frozenset[int]
    written: frozenset[Cell]
    counts: Counter[str]
    fault: str = ""


Action = tuple[str, int, int, object]
_COUNTED = ("writes", "answers", "drops", "resets", "origins")


@dataclass(slots=True)
class World:
    """All nodes; the pushes under way, for ever; all cells ever written."""

    bounds: Bounds
    nodes: tuple[Node, ...]
    pushes: frozenset[int] = frozenset()
    written: frozenset[Cell] = frozenset()
    outcomes: dict[object, Outcome] = field(default_factory=dict)
    writes: int = 0
    answers: int = 0
    drops: int = 0
    resets: int = 0
    origins: int = 0

    def key(self) -> tuple[int, ...]:
        """Return what is equal for states from which the same can follow."""
        nodes = (node.key for node in self.nodes)
        counts = (self.writes, self.answers, self.drops, self.resets, self.origins)
        return (*nodes, _number_of(self.pushes), *counts)

    def actions(self) -> Iterator[Action]:
        """Yield all that may happen next."""
        for number, node in enumerate(self.nodes):
            if self.writes < self.bounds.writes:
                for row in range(self.bounds.rows):
                    is_there = is_alive(node.store.row(_row(row)))
                    for kind in ("delete", "set") if is_there else ("set",):
                        for jump in self.bounds.jumps_ms:
                            yield "write", number, row, (kind, jump)
            if self.drops < self.bounds.drops and any(node.store.tombstones()):
                yield "drop", number, 0, None
            for other in range(len(self.nodes)):
                if other != number:
                    yield "greet", number, other, None
            if node.answer:
                yield "answer", number, 0, None
            for push in self.pushes:
                yield "push", number, 0, push

    def after(self, action: Action) -> World | None:
        """Return the state after an action, None if it may not happen. Raises Fault."""
        kind, number, other, detail = action
        # What happens depends on no more than this, and is the same in very many states.
        peer = self.nodes[other].key if kind == "greet" else other
        facts = (self.writes if kind == "write" else 0, self.origins)
        key = (kind, number, self.nodes[number].key, peer, detail, facts)
        outcome = self.outcomes.get(key)
        if outcome is None:
            outcome = self.outcomes[key] = _outcome(self, action)
        if outcome.fault:
            raise Fault(outcome.fault)
        is_same = outcome.node.key == self.nodes[number].key and not outcome.counts
        if is_same and outcome.pushes <= self.pushes:
            return None
        nodes = (*self.nodes[:number], outcome.node, *self.nodes[number + 1 :])
        after = World(
            self.bounds,
            nodes,
            self.pushes | outcome.pushes,
            self.written | outcome.written,
            self.outcomes,
            *(getattr(self, name) + outcome.counts[name] for name in _COUNTED),
        )
        return after if all(after._is_allowed(name) for name in outcome.counts) else None

    def _is_allowed(self, name: str) -> bool:
        count: int = getattr(self, name)
        return count <= getattr(self.bounds, name, count)

    def check(self, number: int, before: World) -> None:
        """Raise Fault if a node that has acted shows anything but the newest of what it has seen.

        If it has written something, nobody else may have to show it yet.
        """
        is_written = len(self.written) > len(before.written)
        for each in range(len(self.nodes)) if is_written else (number,):
            self._check(each)

    def _check(self, number: int) -> None:
        node = self.nodes[number]
        expected = self.expected(node.store.vector())
        for row in range(self.bounds.rows):
            key = _row(row)
            showing = shown(key, node.store.row(key))
            if (showing and showing["app"]) != expected.get(key):
                raise Fault(f"node {number} shows {showing} and not {expected.get(key)}")
        copy = node.replica.copy
        for other in self.nodes:
            known = other.replica.copy
            past = (copy.vector_id, copy.generation_id)
            if past == (known.vector_id, known.generation_id) and copy.digest != known.digest:
                raise Fault(f"node {number} has seen the same as another and differs")

    def expected(self, vector: Vector) -> dict[Key, object]:
        """Return what must be shown by who has seen so much."""
        newest: dict[tuple[Key, str], Cell] = {}
        for cell in self.written:
            if cell.seq <= seq_of(vector, cell.origin):
                held = newest.get((cell.key, cell.group))
                if held is None or (cell.stamp, cell.origin) > (held.stamp, held.origin):
                    newest[cell.key, cell.group] = cell
        return {
            key: newest[key, "app"].values[0]
            for (key, group), cell in newest.items()
            if group == LIFE and cell.values == ALIVE
        }


def _outcome(world: World, action: Action) -> Outcome:
    kind, number, other, detail = action
    touched = _Touched(world, number)
    fault = ""
    try:
        if kind == "write":
            assert isinstance(detail, tuple)
            touched.write(_row(other), *detail)
        elif kind == "drop":
            touched.drop()
        elif kind == "greet":
            touched.greet(other)
        elif kind == "answer":
            touched.take_answer()
        else:
            assert isinstance(detail, int)
            touched.take(_PUSHES[detail])
    except Fault as found:
        fault = str(found)
    return touched.outcome(fault)


class _Touched:
    """A node while it acts."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        node = world.nodes[number]
        self._store = node.store.copy()
        self._replica = _copied(node.replica, self._store, self._new_origin)
        self._answer = node.answer
        self._counts: Counter[str] = Counter()
        self._pushes: set[int] = set()
        self._written: set[Cell] = set()

    def _new_origin(self) -> bytes:
        self._counts["origins"] += 1
        return (self._world.origins + self._counts["origins"]).to_bytes(16)

    def write(self, key: Key, kind: str, jump_ms: int) -> None:
        self._counts["writes"] += 1
        values = {"app": str(self._world.writes)} if kind == "set" else None
        now_ms = ms_of(self._replica.copy.clock) + jump_ms
        self._send(self._replica.write([Edit(key, values)], "", now_ms))

    def drop(self) -> None:
        self._counts["drops"] += 1
        self._replica.copy.drop(FAR_MS + KEEP_MS + HOUR_MS)

    def greet(self, other: int) -> None:
        """Meet another node as it is now; it answers a pull at once, but that may come late."""
        self._replica._pull = None  # it was given up
        self._answer = ()
        peer = self._world.nodes[other].replica
        (hello,) = peer.joined(str(self._number), 0)
        sends = self._replica.receive(str(other), hello.message, 0)
        for send in self._send(sends):
            if isinstance(send.message, Pull):
                pull = send.message
                self._counts["resets" if pull.wanted is Wanted.CLONE else "answers"] += 1
                served = _copied(peer, self._world.nodes[other].store.copy(), self._new_origin)
                self._answer = tuple(
                    answer.message
                    for answer in served.receive(str(self._number), pull, 0)
                    if isinstance(answer.message, Cells | Reset)
                )

    def take_answer(self) -> None:
        answer, *rest = self._answer
        self._answer = tuple(rest)
        before = self._store.copy()
        peer = self._replica._pull.peer if self._replica._pull else "0"
        sends = self._replica.receive(peer, answer, 0)
        for send in self._send(sends):
            if isinstance(send.message, Pull):
                self._replica._pull = None  # it is lost
        if isinstance(answer, Reset) and answer.vector is not None:
            self._check_clone(before, answer.vector)

    def take(self, push: Push) -> None:
        self._send(self._replica.receive("0" if self._number else "1", push, 0))

    def _send(self, said: Iterable[Send]) -> list[Send]:
        """Put pushes under way; return the rest."""
        sends = list(said)
        for send in sends:
            if isinstance(send.message, Push):
                number = _number_of(send.message)
                _PUSHES[number] = send.message
                self._pushes.add(number)
                self._written.update(send.message.cells)
        return [send for send in sends if not isinstance(send.message, Push)]

    def _check_clone(self, before: MemoryStore, vector: Vector) -> None:
        """Raise Fault if a clone has lost a write of its own, or brought back what was deleted."""
        facts = before.facts()
        for row in range(self._world.bounds.rows):
            key = _row(row)
            after = self._store.row(key)
            for cell in before.row(key).values():
                is_own = cell.origin in (facts.origin, *facts.earlier)
                if is_own and cell.seq > seq_of(vector, cell.origin):
                    held = after.get(cell.group)
                    is_void = not is_alive(after) and (cell.group != LIFE or cell.values != ALIVE)
                    is_newer = held is not None and held.stamp >= cell.stamp
                    if not is_void and not is_newer:
                        raise Fault(f"a clone has lost {cell}")
            if is_alive(after) and LIFE not in before.row(key):
                life = after[LIFE]
                if life.seq <= seq_of(before.vector(), life.origin):
                    raise Fault("a clone has brought back what was deleted")

    def outcome(self, fault: str) -> Outcome:
        node = _node(self._replica, self._store, self._answer)
        return Outcome(node, frozenset(self._pushes), frozenset(self._written), self._counts, fault)


def _row(number: int) -> Key:
    return Key(ROUTES, str(number))


def _copied(replica: Replica, store: MemoryStore, new_origin: object) -> Replica:
    other = object.__new__(type(replica))
    other.__dict__.update(replica.__dict__)
    other._peers = {peer: {} for peer in replica._peers}
    other._greeted_ms = {}
    other._repaired_ms = None
    other._last_number = -1
    other._pull = None if replica._pull is None else replace(replica._pull, number=0)
    other.copy = object.__new__(type(replica.copy))
    other.copy.__dict__.update(replica.copy.__dict__)
    other.copy._store = store
    other.copy._new_origin = new_origin  # type: ignore[assignment]
    return other


def _node(replica: Replica, store: MemoryStore, answer: tuple[Cells | Reset, ...]) -> Node:
    if not answer:
        replica._pull = None
    pull = replica._pull
    facts = store.facts()
    key = (
        facts.origin,
        facts.earlier,
        replica.copy._confirmed.seq,
        facts.clock,
        frozenset(store.beyond({})),
        frozenset(store.vector().items()),
        frozenset(store.generation().items()),
        pull and (pull.peer, pull.wanted, pull.parts),
        tuple(_key_of(part) for part in answer),
        frozenset(cell for _, row in store.staged() for cell in row.values()),
    )
    return Node(replica, store, answer, _number_of(key))


def _key_of(answer: Cells | Reset) -> object:
    vector = frozenset((answer.vector or {}).items())
    clock = answer.clock if isinstance(answer, Reset) else None
    return (answer.generation_id, answer.cells, answer.vector is None, vector, clock)


def first_world(bounds: Bounds, kinds: tuple[type[Replica], type[OwnCopy]]) -> World:
    """Return the state at the start."""
    nodes = []
    for number in range(bounds.nodes):
        store = MemoryStore()
        origin = (number + 1).to_bytes(16)
        replica = kinds[0](store, lambda origin=origin: origin)  # type: ignore[misc]
        replica.copy.__class__ = kinds[1]
        for other in range(bounds.nodes):
            if other != number:
                replica.joined(str(other), 0)
        nodes.append(_node(replica, store, ()))
    generous = Bounds(bounds.nodes, writes=9, drops=9)
    world = World(generous, tuple(nodes), origins=bounds.nodes)
    if bounds.begin != "nothing":
        world = _after(world, "write", 0, ("set", 0))
        for number in range(1, bounds.nodes):
            world = _after(world, "push", number, max(world.pushes))
            world = _after(world, "greet", 0, None, number)
    if bounds.begin == "away":
        world = _after(world, "write", 0, ("delete", 2))
        world = _after(world, "push", 1, max(world.pushes))
        world = _after(world, "drop", 1, None)
    return replace(world, bounds=bounds, outcomes={}, writes=0, drops=0)


def _after(world: World, kind: str, number: int, detail: object, other: int = 0) -> World:
    return world.after((kind, number, other, detail)) or world
