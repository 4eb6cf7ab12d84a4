"""What every node must show, computed from all that was ever committed.

At every commit of a node: its rows are the newest of the writes that its vector covers, and nodes
with equal vectors and generations have equal tables. At rest: all nodes show the newest of all
that was ever committed, whoever committed it, and whatever became of it on the way.

What is excused at rest, unless some node turns out to have it:
- `restored`: what was only in a store that a backup has replaced.
- `never returned`: what only nodes knew that crash or leave for good. So is what the last node
  that still knew it gave up, to start anew as a clone, after its writer had lost it in these ways.
- A delete that all who knew of it have forgotten, after a week, before they met a row of that name
  whose writer did not know of the delete, nor the deleter of that row: then the row is there.

What is not looked at in the steps: the rows of nodes that know two pasts of one origin, as of a
restored backup of a node that had been stopped in order. They show both, their vector tells of one;
at rest they are looked at as all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edgeproxy.core.cluster.cells import ALIVE, LIFE, Cell, is_tombstone
from edgeproxy.core.cluster.messages import Push
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.rows import Key
from edgeproxy.core.cluster.vectors import (
    NOTHING,
    Head,
    Origin,
    Vector,
    chain_after,
    generation_id,
    seq_of,
    vector_id,
)
from tests.sim.store import Disk

Dot = tuple[Origin, Head]
Row = Mapping[str, Cell]
Shown = Mapping[str, tuple[object, ...]]


class Fault(Exception):  # noqa: N818
    """What must not be has happened."""


@dataclass
class Written:
    """A transaction."""

    writer: str
    previous: Head
    cells: tuple[Cell, ...]
    vector: Vector


@dataclass
class Seen:
    """What a node has seen, as of its last commit."""

    vector: dict[Origin, Head] = field(default_factory=dict)
    dots: set[Dot] = field(default_factory=set)
    rows: dict[Key, dict[str, Cell]] = field(default_factory=dict)


class Oracle:
    """Knows all that was ever committed.

    Attributes:
        excused: What may be missing at rest.
        bereft: Nodes whose store was restored, or which never return.
    """

    def __init__(self) -> None:
        self._written: dict[Dot, Written] = {}
        self._heads: dict[tuple[Origin, int], Head] = {}
        self._forked: set[Origin] = set()
        self._may_fork: set[str] = set()
        self._dropped: dict[Origin, int] = {}
        self._seen: dict[str, Seen] = {}
        self._digests: dict[tuple[bytes, bytes], bytes] = {}
        self.excused: dict[Dot, str] = {}
        self.bereft: set[str] = set()

    @property
    def transactions(self) -> int:
        return len(self._written)

    def committed(self, name: str, pushes: Iterable[Push], vector: Vector) -> None:
        for push in pushes:
            head = Head(push.seq, chain_after(push.previous, push.cells))
            previous = Head(push.seq - 1, push.previous)
            self._written[push.origin, head] = Written(name, previous, push.cells, vector)
            if self._heads.setdefault((push.origin, push.seq), head) != head:
                if name not in self._may_fork:
                    raise Fault(f"{name} writes two pasts under one origin: {push}")
                self._forked.add(push.origin)

    # -- at every commit -------------------------------------------------------------

    def check(self, name: str, disk: Disk) -> None:
        """Look at a store after a commit."""
        seen = self._seen.setdefault(name, Seen())
        vector = disk.vector()
        before, now = seen.vector, dict(vector)
        touched: set[Key] = set()
        if before != now:
            new: list[Dot] = []
            is_growth = before.keys() <= now.keys()
            for origin, head in now.items():
                dots, is_onwards = self._path(origin, head, before.get(origin, NOTHING))
                new += dots
                is_growth &= is_onwards
            touched = self._cover(seen, new) if is_growth else self._cover_anew(name, seen, now)
            seen.vector = now
        if self._is_forked(now):
            return
        for key in touched:
            self._compare(name, key, seen.rows.get(key, {}), disk.row(key))
        self._check_digest(name, disk, now)
        dropped = disk.generation()
        for origin, seq in dropped.items():
            self._dropped[origin] = max(seq, self._dropped.get(origin, 0))
        if dropped:
            for cell in disk.tombstones():
                if is_tombstone(cell) and cell.seq <= dropped.get(cell.origin, 0):
                    raise Fault(f"{name} keeps a tombstone that it says it has dropped: {cell}")

    def _path(self, origin: Origin, head: Head, after: Head) -> tuple[list[Dot], bool]:
        """Return a past back to a head, and whether that belongs to it."""
        found = []
        while head.seq > after.seq:
            found.append((origin, head))
            written = self._written.get((origin, head))
            if written is None:
                raise Fault(f"somebody has seen {origin.hex()} {head}, which nobody has written")
            head = written.previous
        return found, head == after

    def _cover(self, seen: Seen, dots: Iterable[Dot]) -> set[Key]:
        touched = set()
        for dot in dots:
            seen.dots.add(dot)
            self.excused.pop(dot, None)
            for cell in self._written[dot].cells:
                touched.add(cell.key)
                _take(seen.rows, cell)
        return touched

    def _cover_anew(self, name: str, seen: Seen, vector: Vector) -> set[Key]:
        """A node has seen less, or something else, than before: it has begun anew."""
        before, keys = seen.dots, set(seen.rows)
        seen.dots, seen.rows = set(), {}
        for origin, head in vector.items():
            keys |= self._cover(seen, self._path(origin, head, NOTHING)[0])
        for dot in before - seen.dots:
            writer = self._written[dot].writer
            if writer in self.bereft and writer != name and not self._is_held(dot):
                self.excused[dot] = "never returned"
        return keys

    def _is_held(self, dot: Dot) -> bool:
        return any(dot in seen.dots for seen in self._seen.values())

    def _is_forked(self, vector: Vector) -> bool:
        return not self._forked.isdisjoint(vector)

    def _compare(self, name: str, key: Key, expected: Row, found: Row) -> None:
        # What is found must be without old cells; it is not looked at whether they are old.
        is_there = shown(found) is not None
        plain = {group: cell.values for group, cell in sorted(found.items())} if is_there else None
        if shown(expected) != plain:
            raise Fault(
                f"{name} shows {plain} for {key.id}, and has seen {shown(expected)}\n"
                f"  expected of {dict(expected)}\n  found {dict(found)}"
            )

    def _check_digest(self, name: str, disk: Disk, vector: Vector) -> None:
        past = (vector_id(vector), generation_id(disk.generation()))
        digest = disk.digest().to_bytes(16)
        if self._digests.setdefault(past, digest) != digest:
            raise Fault(f"{name} has seen and dropped the same as another, and its table differs")

    # -- what is lost ----------------------------------------------------------------

    def restored(self, name: str, disk: Disk) -> None:
        """A backup has replaced the store of a node."""
        self.bereft.add(name)
        if disk.facts().is_stopped:
            self._may_fork.add(name)
        seen = self._seen.setdefault(name, Seen())
        lost = set(seen.dots)
        self._cover_anew(name, seen, disk.vector())
        seen.vector = dict(disk.vector())
        for dot in lost - seen.dots:
            if not self._is_held(dot):
                self.excused[dot] = "restored"

    def gone(self, name: str) -> None:
        """A node never returns."""
        self.bereft.add(name)
        seen = self._seen.pop(name, Seen())
        for dot in seen.dots:
            if not self._is_held(dot):
                self.excused[dot] = "never returned"

    # -- at rest ---------------------------------------------------------------------

    def check_rest(self, disks: Mapping[str, Disk], replicas: Mapping[str, Replica]) -> None:
        """Look at all nodes when all have had time to tell each other everything."""
        rows: dict[Key, dict[str, Cell]] = {}
        forgotten: dict[Key, int] = {}
        for dot, written in self._written.items():
            for cell in written.cells:
                if self._is_forgotten(dot, written, cell):
                    forgotten[cell.key] = max(cell.stamp, forgotten.get(cell.key, 0))
        for dot, written in self._written.items():
            if dot not in self.excused:
                for cell in written.cells:
                    # With a delete that is forgotten goes what it has deleted.
                    is_void = cell.stamp <= forgotten.get(cell.key, 0) and not self._is_held(dot)
                    if not is_void:
                        _take(rows, cell)
        for name, disk in disks.items():
            keys = rows.keys() | {row.key for row in disk.changed_after(0)}
            for key in sorted(keys):
                self._compare(f"at rest, {name}", key, rows.get(key, {}), disk.row(key))
        pasts = {
            name: (replica.copy.vector_id, replica.copy.generation_id, replica.copy.digest)
            for name, replica in replicas.items()
        }
        if len(set(pasts.values())) > 1:
            raise Fault(f"at rest, nodes have seen or dropped different things: {pasts}")

    def _is_forgotten(self, dot: Dot, written: Written, cell: Cell) -> bool:
        """Return whether a delete could not be told from a row that was not known to it."""
        if not is_tombstone(cell) or cell.seq > self._dropped.get(cell.origin, 0):
            return False
        return not self._is_held(dot) and any(
            other.key == cell.key
            and other.group == LIFE
            and other.values == ALIVE
            and other.stamp < cell.stamp
            and other.seq > seq_of(written.vector, other.origin)
            for each in self._written.values()
            for other in each.cells
        )


def shown(row: Row) -> Shown | None:
    """Return what a row shows: all groups that were written in its life."""
    life = row.get(LIFE)
    if life is None or life.values != ALIVE:
        return None
    born = (life.stamp, life.origin)
    return {
        group: cell.values
        for group, cell in sorted(row.items())
        if (cell.stamp, cell.origin) >= born
    }


def _take(rows: dict[Key, dict[str, Cell]], cell: Cell) -> None:
    row = rows.setdefault(cell.key, {})
    held = row.get(cell.group)
    if held is None or (cell.stamp, cell.origin) > (held.stamp, held.origin):
        row[cell.group] = cell
