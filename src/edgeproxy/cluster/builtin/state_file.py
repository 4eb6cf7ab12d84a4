"""A node's durable state as an SQLite file: a store (`core.cluster.store`) that survives its node.

The cells stay on disk; vectors and facts are also held in memory. Rows are written many at a time,
at the latest when their transaction ends. What is committed has reached the disk. Every fault is a
`StateError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgeproxy.cluster.builtin.state_database import StateDamagedError, StateDatabase
from edgeproxy.core.cluster.cells import (
    DIGEST_BYTES,
    DIGESTS,
    Cell,
    RowCells,
    digest_of,
    is_tombstone,
    merged,
    shown,
    shows_else,
)
from edgeproxy.core.cluster.rows import Key, Value
from edgeproxy.core.cluster.store import Changed, Facts
from edgeproxy.core.cluster.vectors import Generation, Head, Origin, Vector, seq_of
from edgeproxy.log import EventLog
from edgeproxy.store.sqlite.database import move_aside

log = EventLog("cluster")

_PAGE_ROWS = 500
"""Rows that are read, or written, at once."""

_FULL_CELL = "SELECT tbl, id, grp, stamp, origin, seq, vals FROM"
_PLACES = "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_VALUES = msgspec.msgpack.Decoder(tuple[Value, ...])
_FACTS = msgspec.msgpack.Decoder(Facts)


class _Unwritten(NamedTuple):
    """A row that is set and yet to be written; the position if it shows something else."""

    before: RowCells
    after: RowCells
    position: int | None


@dataclass(frozen=True)
class _Memory:
    """What is held in memory too, as in the file; replaced, never changed."""

    facts: Facts = field(default_factory=Facts)
    heads: Mapping[Origin, Head] = field(default_factory=dict)
    dropped: Mapping[Origin, int] = field(default_factory=dict)
    digest: int = 0
    position: int = 0


class StateFile:
    """The state of one node in a file, which is created if there is none.

    Threads may share it, one at a time.

    Attributes:
        state_id: Unlike that of any other file, but for copies.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; raises StateError, whose text says what to do."""
        self._database = StateDatabase(path)
        self._connection = self._database.connection
        self._faults = self._database.faults
        self._memory = _Memory()
        self._unwritten: dict[Key, _Unwritten] = {}
        try:
            with self._faults():
                self._memory = self._read_memory()
                (found,) = self._connection.execute("SELECT id FROM identity").fetchone()
                self.state_id = bytes(found).hex()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes of a block at once, durably; none if it raises."""
        before = self._memory
        with self._faults():
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._write_rows()
            with self._faults():
                self._write_memory(before)
                self._connection.execute("COMMIT")
        except BaseException:
            self._memory = before
            self._unwritten.clear()
            if self._connection.in_transaction:
                with self._faults():
                    self._connection.execute("ROLLBACK")
            raise

    # What is held in memory too

    def _read_memory(self) -> _Memory:
        run = self._connection.execute
        found = run("SELECT facts, digest, position FROM facts").fetchone()
        if found is None:  # it is new
            return _Memory()
        facts, digest, position = found
        return _Memory(
            _FACTS.decode(facts),
            {origin: Head(seq, chain) for origin, seq, chain in run("SELECT * FROM heads")},
            dict(run("SELECT origin, seq FROM dropped").fetchall()),
            int.from_bytes(digest),
            position,
        )

    def _write_memory(self, before: _Memory) -> None:
        """Write what has changed of it since."""
        run, now = self._connection.execute, self._memory
        if now.heads is not before.heads:
            changed = {*now.heads.items()} - {*before.heads.items()}
            gone = [(origin,) for origin in before.heads if origin not in now.heads]
            self._connection.executemany("DELETE FROM heads WHERE origin = ?", gone)
            self._connection.executemany(
                "INSERT OR REPLACE INTO heads VALUES (?, ?, ?)",
                [(origin, *head) for origin, head in changed],
            )
        if now.dropped is not before.dropped:
            run("DELETE FROM dropped")
            self._connection.executemany("INSERT INTO dropped VALUES (?, ?)", now.dropped.items())
        if now is not before:
            facts = msgspec.msgpack.encode(now.facts)
            digest = now.digest.to_bytes(DIGEST_BYTES)
            run("INSERT OR REPLACE INTO facts VALUES (1, ?, ?, ?)", (facts, digest, now.position))

    def _assert_changing(self) -> None:
        assert self._connection.in_transaction, "a change outside of a transaction"

    def _change(self, **fields: object) -> None:
        self._assert_changing()
        self._memory = replace(self._memory, **fields)  # type: ignore[arg-type]

    def facts(self) -> Facts:
        """Return what the node knows of itself."""
        return self._memory.facts

    def set_facts(self, facts: Facts) -> None:
        """Replace what the node knows of itself."""
        self._change(facts=facts)

    def vector(self) -> Vector:
        """Return what has been seen of each origin."""
        return self._memory.heads

    def set_heads(self, heads: Vector) -> None:
        """Change what has been seen of these origins."""
        self._change(heads={**self._memory.heads, **heads})

    def set_vector(self, vector: Vector) -> None:
        """Replace what has been seen."""
        self._change(heads=dict(vector))

    def generation(self) -> Generation:
        """Return what has been dropped of each origin."""
        return self._memory.dropped

    def set_generation(self, generation: Generation) -> None:
        """Replace what has been dropped."""
        self._change(dropped=dict(generation))

    def digest(self) -> int:
        """Return the sum of the digests of all cells."""
        return self._memory.digest

    def position(self) -> int:
        """Return the largest position of a row."""
        return self._memory.position

    # Cells

    def row(self, key: Key) -> RowCells:
        """Return the cells of a row."""
        if key in self._unwritten:
            return self._unwritten[key].after
        with self._faults():
            found = self._connection.execute(
                "SELECT grp, stamp, origin, seq, vals FROM cells WHERE tbl = ? AND id = ?", key
            )
            return {cell[0]: _cell_of(key, *cell) for cell in found}

    def set_row(self, key: Key, before: RowCells, after: RowCells) -> None:
        """Replace the cells of a row."""
        removed = [cell for cell in before.values() if after.get(cell.group) is not cell]
        added = [cell for cell in after.values() if before.get(cell.group) is not cell]
        change = sum(map(digest_of, added)) - sum(map(digest_of, removed))
        digest, position = (self._memory.digest + change) % DIGESTS, self._memory.position
        in_file, _, at = self._unwritten.get(key, (before, before, None))
        if shows_else(key, before, after):
            at = position = position + 1
        self._assert_changing()
        self._unwritten[key] = _Unwritten(in_file, after, at)
        memory = self._memory
        self._memory = _Memory(memory.facts, memory.heads, memory.dropped, digest, position)
        if len(self._unwritten) >= _PAGE_ROWS:
            self._write_rows()

    def _write_rows(self) -> None:
        """Write the rows that are set."""
        gone, new, positions = [], [], []
        for key, (before, after, position) in self._unwritten.items():
            gone += [(*key, group) for group in before if group not in after]
            new += [cell for cell in after.values() if before.get(cell.group) is not cell]
            if position is not None:
                positions.append((*key, position))
        self._unwritten.clear()
        with self._faults():
            many = self._connection.executemany
            many("DELETE FROM cells WHERE tbl = ? AND id = ? AND grp = ?", gone)
            many(f"INSERT OR REPLACE INTO cells {_PLACES}", map(_columns, new))
            many("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", positions)

    def beyond(self, vector: Vector) -> Iterator[Cell]:
        """Yield all cells whose dots a vector does not cover, by origin and in its order."""
        origin = b""
        self._write_rows()
        with self._faults():
            run = self._connection.execute
            while True:
                found = run("SELECT min(origin) FROM cells WHERE origin > ?", (origin,))
                (origin,) = found.fetchone()
                if origin is None:
                    return
                yield from map(
                    _cell,
                    run(
                        f"{_FULL_CELL} cells WHERE origin = ? AND seq > ? ORDER BY seq",
                        (origin, seq_of(vector, origin)),
                    ),
                )

    def tombstones(self) -> Iterator[Cell]:
        """Yield the life of all rows that are gone."""
        self._write_rows()
        with self._faults():
            yield from map(_cell, self._connection.execute(f"{_FULL_CELL} cells WHERE is_gone = 1"))

    def changed_after(self, position: int) -> Iterator[Changed]:
        """Yield the rows that show something else since a position."""
        self._write_rows()
        with self._faults():
            found = self._connection.execute(
                "SELECT p.position, p.tbl, p.id, c.grp, c.stamp, c.origin, c.seq, c.vals "
                "FROM positions AS p LEFT JOIN cells AS c ON c.tbl = p.tbl AND c.id = p.id "
                "WHERE p.position > ? ORDER BY p.position",
                (position,),
            )
            for (at, *names), cells in groupby(found, itemgetter(0, 1, 2)):
                key = Key(*names)
                row = {cell[3]: _cell_of(key, *cell[3:]) for cell in cells if cell[3] is not None}
                yield Changed(at, key, shown(key, row))

    def forget_gone(self, position: int) -> None:
        """Forget the positions, up to this one, of rows without cells."""
        self._write_rows()
        with self._faults():
            self._connection.execute(
                "DELETE FROM positions WHERE position <= ? AND NOT EXISTS (SELECT 1 FROM cells "
                "WHERE cells.tbl = positions.tbl AND cells.id = positions.id)",
                (position,),
            )

    # What is laid aside

    def stage(self, cells: Iterable[Cell]) -> None:
        """Lay cells aside."""
        with self._faults():
            self._connection.executemany(f"INSERT INTO staged {_PLACES}", map(_columns, cells))

    def staged(self) -> Iterator[tuple[Key, RowCells]]:
        """Yield what was laid aside by row."""
        with self._faults():
            found = self._connection.execute(f"{_FULL_CELL} staged ORDER BY tbl, id")
            for names, cells in groupby(found, itemgetter(0, 1)):
                key = Key(*names)
                yield key, merged({}, (_cell_of(key, *cell[2:]) for cell in cells))

    def unstaged(self) -> Iterator[Key]:
        """Yield the keys of the rows of which nothing was laid aside."""
        with self._faults():
            self._connection.execute("CREATE INDEX IF NOT EXISTS staged_rows ON staged (tbl, id)")
        after = Key("", "")
        while True:
            self._write_rows()
            with self._faults():
                # Page by page, because rows may be set meanwhile.
                page = self._connection.execute(
                    "SELECT DISTINCT tbl, id FROM cells AS t WHERE (tbl, id) > (?, ?) AND NOT "
                    "EXISTS (SELECT 1 FROM staged WHERE staged.tbl = t.tbl AND staged.id = t.id) "
                    "ORDER BY tbl, id LIMIT ?",
                    (*after, _PAGE_ROWS),
                ).fetchall()
            if not page:
                return
            for names in page:
                after = Key(*names)
                yield after

    def clear_stage(self) -> None:
        """Forget what was laid aside."""
        with self._faults():
            self._connection.execute("DROP INDEX IF EXISTS staged_rows")
            self._connection.execute("DELETE FROM staged")


def opened(path: Path) -> StateFile:
    """Return the state in a file. A damaged one is moved aside: all comes back from other nodes.

    Raises StateError.
    """
    try:
        return StateFile(path)
    except StateDamagedError as error:
        log.warning("replication_state_damaged", moved_to=move_aside(path), reason=str(error))
        return StateFile(path)


def _columns(cell: Cell) -> tuple[object, ...]:
    return (*cell.key, *cell[1:-1], msgspec.msgpack.encode(cell.values), is_tombstone(cell))


def _cell(found: tuple[str, str, str, int, bytes, int, bytes]) -> Cell:
    table, name, group, stamp, origin, seq, values = found
    return _cell_of(Key(table, name), group, stamp, origin, seq, values)


def _cell_of(key: Key, group: str, stamp: int, origin: bytes, seq: int, values: bytes) -> Cell:
    return Cell(key, group, stamp, origin, seq, _VALUES.decode(values))
