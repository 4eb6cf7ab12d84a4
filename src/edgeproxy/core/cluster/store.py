"""What one node keeps, and how: the contract of its durable state, and one kept in memory.

All changes are made within `transaction()`: they are there together, for good, or not at all.
Whether what is kept is right is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple, Protocol

from edgeproxy.core.cluster.cells import (
    DIGESTS,
    Cell,
    RowCells,
    digest_of,
    is_tombstone,
    merged,
    shown,
    shows_else,
)
from edgeproxy.core.cluster.rows import Key, Values
from edgeproxy.core.cluster.vectors import NOTHING, Generation, Head, Origin, Vector, seq_of


class Facts(NamedTuple):
    """What a node knows of itself.

    Attributes:
        origin: Under which it writes; empty before its first start.
        earlier: Under which it has written before, as far as its vector knows of them.
        confirmed: Up to where another node has been seen to have the same past under `origin`.
        clock: The largest stamp it has seen or given.
        token: That of the last write.
        is_stopped: It was stopped in order, and has not been started since.
        has_met: It has seen all that some other node had, be it long ago.
    """

    origin: Origin = b""
    earlier: tuple[Origin, ...] = ()
    confirmed: Head = NOTHING
    clock: int = 0
    token: str = ""
    is_stopped: bool = False
    has_met: bool = False


class Changed(NamedTuple):
    """A row that shows something else since a position; None if it is gone."""

    position: int
    key: Key
    values: Values | None


class Store(Protocol):
    """The durable state of one node."""

    def transaction(self) -> AbstractContextManager[None]:
        """Make all changes of a block at once, durably; none if it raises. Never nested."""

    def facts(self) -> Facts:
        """Return what the node knows of itself."""

    def set_facts(self, facts: Facts) -> None:
        """Replace what the node knows of itself."""

    def vector(self) -> Vector:
        """Return what has been seen of each origin; not to be changed."""

    def set_heads(self, heads: Vector) -> None:
        """Change what has been seen of these origins."""

    def set_vector(self, vector: Vector) -> None:
        """Replace what has been seen."""

    def generation(self) -> Generation:
        """Return what has been dropped of each origin; not to be changed."""

    def set_generation(self, generation: Generation) -> None:
        """Replace what has been dropped."""

    def digest(self) -> int:
        """Return the sum of the digests of all cells, modulo DIGESTS."""

    def row(self, key: Key) -> RowCells:
        """Return the cells of a row; none if nothing is known of it."""

    def set_row(self, key: Key, before: RowCells, after: RowCells) -> None:
        """Replace the cells of a row, which are `before`; give it a position if it shows else."""

    def beyond(self, vector: Vector) -> Iterator[Cell]:
        """Yield all cells whose dots a vector does not cover. Nothing may change meanwhile."""

    def tombstones(self) -> Iterator[Cell]:
        """Yield the life of all rows that are gone. Nothing may change meanwhile."""

    def position(self) -> int:
        """Return the largest position of a row."""

    def changed_after(self, position: int) -> Iterator[Changed]:
        """Yield the rows that show something else since a position, in order of theirs.

        After 0 it yields all rows. Nothing may change meanwhile.
        """

    def forget_gone(self, position: int) -> None:
        """Forget the positions, up to this one, of rows without cells."""

    def stage(self, cells: Iterable[Cell]) -> None:
        """Lay cells aside; a row may come in several parts."""

    def staged(self) -> Iterator[tuple[Key, RowCells]]:
        """Yield what was laid aside by row. Rows may be set meanwhile."""

    def unstaged(self) -> Iterator[Key]:
        """Yield the keys of the rows of which nothing was laid aside. Rows may be set meanwhile."""

    def clear_stage(self) -> None:
        """Forget what was laid aside."""


def by_row(cells: Iterable[Cell]) -> Iterator[tuple[Key, list[Cell]]]:
    """Yield cells by row."""
    for key, of_row in groupby(sorted(cells, key=lambda cell: cell.key), lambda cell: cell.key):
        yield key, list(of_row)


@dataclass
class _State:
    facts: Facts = field(default_factory=Facts)
    vector: Mapping[Origin, Head] = field(default_factory=dict)
    generation: Mapping[Origin, int] = field(default_factory=dict)
    digest: int = 0
    rows: dict[Key, RowCells] = field(default_factory=dict)
    positions: dict[Key, int] = field(default_factory=dict)
    position: int = 0
    stage: dict[Key, RowCells] = field(default_factory=dict)


class MemoryStore:
    """A store for tests and simulations, which forgets all at its end."""

    def __init__(self) -> None:
        self._state = _State()
        self._is_changing = False

    def copy(self) -> MemoryStore:
        """Return another store with the same state."""
        other = MemoryStore()
        other._state = _copied(self._state)
        return other

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes of a block at once; none if it raises."""
        assert not self._is_changing, "nested transaction"
        before = _copied(self._state)
        self._is_changing = True
        try:
            yield
        except BaseException:
            self._state = before
            raise
        finally:
            self._is_changing = False

    def _changing(self) -> _State:
        assert self._is_changing, "a change outside of a transaction"
        return self._state

    def facts(self) -> Facts:
        """Return what the node knows of itself."""
        return self._state.facts

    def set_facts(self, facts: Facts) -> None:
        """Replace what the node knows of itself."""
        self._changing().facts = facts

    def vector(self) -> Vector:
        """Return what has been seen of each origin."""
        return self._state.vector

    def set_heads(self, heads: Vector) -> None:
        """Change what has been seen of these origins."""
        self._changing().vector = {**self._state.vector, **heads}

    def set_vector(self, vector: Vector) -> None:
        """Replace what has been seen."""
        self._changing().vector = dict(vector)

    def generation(self) -> Generation:
        """Return what has been dropped of each origin."""
        return self._state.generation

    def set_generation(self, generation: Generation) -> None:
        """Replace what has been dropped."""
        self._changing().generation = dict(generation)

    def digest(self) -> int:
        """Return the sum of the digests of all cells."""
        return self._state.digest

    def row(self, key: Key) -> RowCells:
        """Return the cells of a row."""
        return self._state.rows.get(key, {})

    def set_row(self, key: Key, before: RowCells, after: RowCells) -> None:
        """Replace the cells of a row."""
        assert before == self.row(key)
        added = sum(map(digest_of, after.values())) - sum(map(digest_of, before.values()))
        state = self._changing()
        state.digest = (state.digest + added) % DIGESTS
        if after:
            state.rows[key] = dict(after)
        else:
            state.rows.pop(key, None)
        if shows_else(key, before, after):
            state.position += 1
            state.positions[key] = state.position

    def beyond(self, vector: Vector) -> Iterator[Cell]:
        """Yield all cells whose dots a vector does not cover."""
        for row in self._state.rows.values():
            yield from (cell for cell in row.values() if cell.seq > seq_of(vector, cell.origin))

    def tombstones(self) -> Iterator[Cell]:
        """Yield the life of all rows that are gone."""
        for row in self._state.rows.values():
            yield from filter(is_tombstone, row.values())

    def position(self) -> int:
        """Return the largest position of a row."""
        return self._state.position

    def changed_after(self, position: int) -> Iterator[Changed]:
        """Yield the rows that show something else since a position."""
        for key, at in sorted(self._state.positions.items(), key=lambda item: item[1]):
            if at > position:
                yield Changed(at, key, shown(key, self.row(key)))

    def forget_gone(self, position: int) -> None:
        """Forget the positions, up to this one, of rows without cells."""
        state = self._changing()
        for key, at in list(state.positions.items()):
            if at <= position and key not in state.rows:
                del state.positions[key]

    def stage(self, cells: Iterable[Cell]) -> None:
        """Lay cells aside."""
        stage = self._changing().stage
        for key, of_row in by_row(cells):
            stage[key] = merged(stage.get(key, {}), of_row)

    def staged(self) -> Iterator[tuple[Key, RowCells]]:
        """Yield what was laid aside."""
        yield from list(self._state.stage.items())

    def unstaged(self) -> Iterator[Key]:
        """Yield the keys of the rows of which nothing was laid aside."""
        yield from [key for key in self._state.rows if key not in self._state.stage]

    def clear_stage(self) -> None:
        """Forget what was laid aside."""
        self._changing().stage = {}


def _copied(state: _State) -> _State:
    return replace(
        state,
        rows=dict(state.rows),
        positions=dict(state.positions),
        stage=dict(state.stage),
    )
