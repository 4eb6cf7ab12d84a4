"""This node's copy of the rows: writing, merging what comes, forgetting, starting anew.

What the copy shows depends only on its vector: it is the newest of the writes that the vector
covers. Every method keeps that, in one transaction of the store. Whether something may be taken at
all (its generation, its place in the order of its origin) is decided in `replica.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from edgeproxy.core.cluster.cells import (
    ALIVE,
    DIGEST_BYTES,
    GONE,
    LIFE,
    Cell,
    RowCells,
    check_row,
    is_alive,
    merged,
    shown,
    size_of,
    written,
)
from edgeproxy.core.cluster.clock import first_of, ms_of, tick
from edgeproxy.core.cluster.messages import CHUNK_BYTES, Push
from edgeproxy.core.cluster.rows import TABLES, Edit, Key, Value, Values
from edgeproxy.core.cluster.store import Store, by_row
from edgeproxy.core.cluster.vectors import (
    NOTHING,
    Generation,
    Head,
    Origin,
    Vector,
    both,
    both_dropped,
    chain_after,
    generation_id,
    seq_of,
    vector_id,
)

MAX_ROWS = 1_000
"""Rows that one transaction changes. A larger write becomes several transactions.

One transaction is one message, so that no node ever has half of one: others see a large write in
steps, but each step whole and in order.
"""

HOUR_MS = 3_600_000
KEEP_MS = 7 * 24 * HOUR_MS
"""How long a tombstone is kept. Who has been away for longer may have to start anew."""


class _Change(NamedTuple):
    """What is to be written to a row, by group, and the row as it is."""

    key: Key
    row: RowCells
    groups: Mapping[str, tuple[Value, ...]]


class OwnCopy:
    """What one node knows, in its store.

    Attributes:
        ahead_ms: By how much the largest stamp of others was ahead of the wall time here.
    """

    def __init__(self, store: Store, new_origin: Callable[[], Origin]) -> None:
        """Start: an origin is used again only if the node was stopped in order."""
        self._store = store
        self._new_origin = new_origin
        self._ids: tuple[Vector, bytes, Generation, bytes] | None = None
        self.ahead_ms = 0
        facts = store.facts()
        self._confirmed = facts.confirmed
        with store.transaction():
            if facts.is_stopped:
                store.set_facts(facts._replace(is_stopped=False))
            else:
                self._begin()

    def stop(self) -> None:
        """Note that the node stops in order. Nothing may be called after it."""
        with self._store.transaction():
            facts = self._store.facts()
            self._store.set_facts(facts._replace(confirmed=self._confirmed, is_stopped=True))

    def _begin(self) -> None:
        """Write under a new origin from now on. What was written under the last is still own."""
        self._confirmed = NOTHING
        facts = self._store.facts()
        earlier = tuple(sorted({*facts.earlier, facts.origin} & set(self._store.vector())))
        origin = self._new_origin()
        self._store.set_facts(
            facts._replace(origin=origin, earlier=earlier, confirmed=NOTHING, is_stopped=False)
        )

    @property
    def origin(self) -> Origin:
        """Under which this node writes."""
        return self._store.facts().origin

    @property
    def own_head(self) -> Head:
        """The last transaction that this node has written under its origin."""
        return self._store.vector().get(self.origin, NOTHING)

    @property
    def vector(self) -> Vector:
        """What this node has seen."""
        return self._store.vector()

    @property
    def vector_id(self) -> bytes:
        """That of the vector."""
        return self._cached_ids()[1]

    @property
    def generation(self) -> Generation:
        """What this node has dropped."""
        return self._store.generation()

    @property
    def generation_id(self) -> bytes:
        """That of the generation."""
        return self._cached_ids()[3]

    @property
    def digest(self) -> bytes:
        """The sum over all cells."""
        return self._store.digest().to_bytes(DIGEST_BYTES)

    @property
    def clock(self) -> int:
        """The largest stamp seen or given."""
        return self._store.facts().clock

    def _cached_ids(self) -> tuple[Vector, bytes, Generation, bytes]:
        seen, dropped = self._store.vector(), self._store.generation()
        if self._ids is None or self._ids[0] is not seen or self._ids[2] is not dropped:
            self._ids = (seen, vector_id(seen), dropped, generation_id(dropped))
        return self._ids

    def beyond(self, vector: Vector) -> Iterator[Cell]:
        """Yield all cells that a vector does not cover."""
        return self._store.beyond(vector)

    def confirm(self, head: Head) -> None:
        """Note that another node has the same past of this node's origin."""
        self._confirmed = max(self._confirmed, head)

    # Writing

    def write(self, edits: Iterable[Edit], token: str, now_ms: int) -> list[Push]:
        """Make edits, durably and together with the token; return what others are to be told.

        What changes nothing is not written, nor an update of a row that is gone. Raises ValueError
        for an edit that cannot be made, and then makes none.
        """
        with self._store.transaction():
            pushes = self._write(self._changes(edits), now_ms)
            facts = self._store.facts()
            self._store.set_facts(facts._replace(token=token, confirmed=self._confirmed))
        return pushes

    def _changes(self, edits: Iterable[Edit]) -> list[_Change]:
        rows: dict[Key, RowCells] = {}
        results: dict[Key, Values | None] = {}
        for key, values in edits:
            check_row(key, values or {})
            if key not in rows:
                rows[key] = self._store.row(key)
                results[key] = shown(key, rows[key])
            names = TABLES[key.table].columns
            if values is None:
                results[key] = None
            elif results[key] or LIFE not in rows[key] or len(values) == len(names):
                results[key] = {**(results[key] or dict.fromkeys(names)), **values}
        changes = [
            _Change(key, row, written(key, shown(key, row), results[key]))
            for key, row in rows.items()
        ]
        return [change for change in changes if change.groups]

    def _write(self, changes: Iterable[_Change], now_ms: int) -> list[Push]:
        pushes: list[Push] = []
        batch: list[_Change] = []
        size = 0
        for change in changes:
            more = sum(map(size_of, _cells_of(change, 0, b"", 0)))
            if batch and (size + more > CHUNK_BYTES or len(batch) == MAX_ROWS):
                pushes.append(self._write_transaction(batch, now_ms))
                batch, size = [], 0
            batch.append(change)
            size += more
        if batch:
            pushes.append(self._write_transaction(batch, now_ms))
        return pushes

    def _write_transaction(self, changes: Sequence[_Change], now_ms: int) -> Push:
        head, origin = self.own_head, self.origin
        stamp = self._stamp(changes, now_ms)
        written_cells: list[Cell] = []
        for change in changes:
            cells = _cells_of(change, stamp, origin, head.seq + 1)
            written_cells += cells
            self._store.set_row(change.key, change.row, merged(change.row, cells))
        chained = chain_after(head.chain, written_cells)
        self._store.set_heads({origin: Head(head.seq + 1, chained)})
        self._store.set_facts(self._store.facts()._replace(clock=stamp))
        return Push(self.generation_id, origin, head.seq + 1, head.chain, tuple(written_cells))

    def _stamp(self, changes: Iterable[_Change], now_ms: int) -> int:
        """Return the stamp of a write, which is above all that it replaces."""
        replaced = (cell.stamp for change in changes for cell in change.row.values())
        return tick(self.clock, now_ms, max(replaced, default=0))

    def _follow(self, stamp: int) -> None:
        """Let the clock show at least what others have given."""
        facts = self._store.facts()
        if stamp > facts.clock:
            self._store.set_facts(facts._replace(clock=stamp))

    # Merging

    def take_push(self, push: Push, now_ms: int) -> None:
        """Take the next transaction of another origin."""
        with self._store.transaction():
            self._merge(_rows_of(push.cells), now_ms)
            head = Head(push.seq, chain_after(push.previous, push.cells))
            self._store.set_heads({push.origin: head})

    def stage(self, cells: Iterable[Cell], is_first: bool) -> None:
        """Lay a part of an answer aside, until all of it is there."""
        with self._store.transaction():
            if is_first:
                self._store.clear_stage()
            self._store.stage(cells)

    def take_answer(
        self, cells: Iterable[Cell], vector: Vector, now_ms: int, is_whole: bool
    ) -> None:
        """Take the last part of an answer: all or nothing, with the parts laid aside if any."""
        with self._store.transaction():
            self._merge(_rows_of(cells), now_ms)
            if not is_whole:
                self._merge(self._store.staged(), now_ms)
                self._store.clear_stage()
            self._store.set_vector(both(self._store.vector(), vector))

    def _merge(self, rows: Iterable[tuple[Key, RowCells]], now_ms: int) -> None:
        newest = 0
        for key, cells in rows:
            before = self._store.row(key)
            after = merged(before, cells.values()) if before else cells
            if after != before:
                self._store.set_row(key, before, after)
            newest = max(newest, *(cell.stamp for cell in cells.values()))
        self.ahead_ms = max(self.ahead_ms, ms_of(newest) - now_ms)
        self._follow(newest)

    # Forgetting

    def drop(self, now_ms: int) -> bool:
        """Drop the tombstones that are old enough; return whether there were any.

        An own one is kept until another node has been seen to have it. The age is in whole hours,
        so that most nodes drop the same without a word.
        """
        before = first_of((now_ms - KEEP_MS) // HOUR_MS * HOUR_MS)
        dropped: dict[Origin, int] = {}
        for cell in self._store.tombstones():
            is_held = cell.origin == self.origin and cell.seq > self._confirmed.seq
            if cell.stamp < before and not is_held:
                dropped[cell.origin] = max(cell.seq, dropped.get(cell.origin, 0))
        if dropped:
            self.adopt(dropped)
        return bool(dropped)

    def adopt(self, generation: Generation) -> None:
        """Forget what another node has dropped. The vector must cover it."""
        with self._store.transaction():
            dropped = both_dropped(self._store.generation(), generation)
            self._store.set_generation(dropped)
            facts = self._store.facts()
            self._store.set_facts(facts._replace(confirmed=self._confirmed))
            for cell in list(self._store.tombstones()):
                if cell.seq <= dropped.get(cell.origin, 0):
                    row = self._store.row(cell.key)
                    rest = {group: kept for group, kept in row.items() if group != LIFE}
                    self._store.set_row(cell.key, row, rest)

    def forget_gone(self, position: int) -> int:
        """Forget that rows without cells have gone, up to a position; return the last one."""
        with self._store.transaction():
            self._store.forget_gone(position)
        return self._store.position()

    # Starting anew

    def renounce(self, now_ms: int) -> list[Push]:
        """Write under a new origin, because somebody else has used this one.

        What was written since others last had the same past is written anew; under the old origin
        it has never been, so that what others know of that can be taken.
        """
        with self._store.transaction():
            old, seen = self.origin, dict(self._store.vector())
            floor = max(self._confirmed.seq, self._store.generation().get(old, 0))
            if floor < seq_of(seen, old):
                seen[old] = Head(floor, self._confirmed.chain)
            doubtful: dict[Key, list[Cell]] = {}
            for cell in self._store.beyond(seen):
                doubtful.setdefault(cell.key, []).append(cell)
            self._store.set_vector({origin: head for origin, head in seen.items() if head.seq})
            self._begin()
            rows = ((key, self._store.row(key), cells) for key, cells in doubtful.items())
            return self._write(
                [_Change(key, row, _again(row, cells)) for key, row, cells in rows], now_ms
            )

    def clone(self, vector: Vector, generation: Generation, clock: int, now_ms: int) -> list[Push]:
        """Replace all by what was laid aside, and write anew what only this node knew.

        The origin is a new one: what was written under the old one may not be in the vector any
        more. If it is, others may still forget it, and then this node has to write it anew.
        """
        with self._store.transaction():
            seen = self._store.vector()
            changes: list[_Change] = []
            for key, theirs in chain(
                self._store.staged(), ((key, {}) for key in self._store.unstaged())
            ):
                mine = self._store.row(key)
                groups = self._unknown(mine, theirs, seen, vector)
                if groups:
                    changes.append(_Change(key, theirs, groups))
                if mine != theirs:
                    self._store.set_row(key, mine, theirs)
            self._store.clear_stage()
            self._store.set_vector(vector)
            self._store.set_generation(generation)
            self._follow(clock)
            self._begin_after_clone()
            return self._write(changes, now_ms)

    def _begin_after_clone(self) -> None:
        self._begin()

    def _unknown(
        self, mine: RowCells, theirs: RowCells, seen: Vector, their_vector: Vector
    ) -> Mapping[str, tuple[Value, ...]]:
        """Return what of a row must be written anew after a clone, because they do not know it."""
        if is_alive(theirs) and LIFE not in mine and _is_seen(theirs[LIFE], seen):
            return {LIFE: GONE}  # it was deleted here, and the tombstone is dropped
        facts = self._store.facts()
        own = [
            cell
            for cell in mine.values()
            if cell.origin in (facts.origin, *facts.earlier) and not _is_seen(cell, their_vector)
        ]
        row = merged(theirs, own)
        newer = [cell for cell in own if row.get(cell.group) is cell]
        if any(cell.group == LIFE for cell in newer):
            return _again(merged(theirs, mine.values()), newer)
        # An update of a row that they have seen and do not have any more is void.
        is_there = is_alive(theirs) or (LIFE in mine and not _is_seen(mine[LIFE], their_vector))
        return _again(mine, newer) if is_there else {}


def _rows_of(cells: Iterable[Cell]) -> Iterator[tuple[Key, RowCells]]:
    return ((key, merged({}, of_row)) for key, of_row in by_row(cells))


def _is_seen(cell: Cell, vector: Vector) -> bool:
    return cell.seq <= seq_of(vector, cell.origin)


def _again(row: RowCells, cells: Iterable[Cell]) -> Mapping[str, tuple[Value, ...]]:
    """Return the values to be written so that these cells of a row are there anew.

    With a life, the whole row is written: older cells would not count any more.
    """
    groups = {cell.group: cell.values for cell in cells}
    if groups.get(LIFE) == ALIVE:
        return {group: cell.values for group, cell in row.items()}
    return {LIFE: groups[LIFE]} if LIFE in groups else groups


def _cells_of(change: _Change, stamp: int, origin: Origin, seq: int) -> list[Cell]:
    return [
        Cell(change.key, group, stamp, origin, seq, values)
        for group, values in change.groups.items()
    ]
