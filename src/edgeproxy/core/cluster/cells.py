"""Cells: what was written last to one group of columns of one row. Merging them; what rows show.

The cell with the larger stamp wins; of equal stamps, that of the larger origin. The group `life`
says whether the row is there. An insert writes all cells of a row, an update those of the groups
that change, a delete only `life`. A cell that is older than the life of its row counts for nothing,
and is not kept: nothing of an earlier life of a row shows through in a later one, also where
somebody knows more groups than the inserter. So the cells of a row depend only on which writes have
been seen, not on their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from edgeproxy.core.cluster.rows import TABLES, Key, Value, Values

LIFE = "life"
ALIVE: tuple[Value, ...] = (1,)
GONE: tuple[Value, ...] = (0,)

MAX_ID_BYTES = 4 << 10
MAX_TEXT_BYTES = 64 << 10
_INT_BOUND = 1 << 63

DIGEST_BYTES = 16
DIGESTS = 1 << 8 * DIGEST_BYTES
"""Digests of cells are added modulo this."""

_encode = msgspec.msgpack.encode


class Cell(NamedTuple):
    """What one write put into one group of a row.

    Attributes:
        stamp: When, by the clock of the writer.
        origin: Who wrote: the writer's lineage, 16 bytes.
        seq: Which transaction of this origin, counted from 1. (origin, seq) is called a dot.
        values: Those of the group's columns, in the order of `rows.TABLES`.
    """

    key: Key
    group: str
    stamp: int
    origin: bytes
    seq: int
    values: tuple[Value, ...]


RowCells = Mapping[str, Cell]
"""The cells of one row, by group."""


def beats(cell: Cell, other: Cell | None) -> bool:
    """Return whether a cell replaces another of the same group; it does not replace itself."""
    if other is None:
        return True
    if (cell.stamp, cell.origin) != (other.stamp, other.origin):
        return (cell.stamp, cell.origin) > (other.stamp, other.origin)
    # Two that cannot be, except of a copied machine: all must still agree on one.
    return cell != other and digest_of(cell) > digest_of(other)


def merged(row: RowCells, cells: Iterable[Cell]) -> RowCells:
    """Return the cells of a row after it has met other cells of the same row."""
    result = dict(row)
    for cell in cells:
        if beats(cell, result.get(cell.group)):
            result[cell.group] = cell
    life = result.get(LIFE)
    if life is None:
        return result
    born = (life.stamp, life.origin)
    return {group: cell for group, cell in result.items() if (cell.stamp, cell.origin) >= born}


def is_alive(row: RowCells) -> bool:
    """Return whether the row is there."""
    return LIFE in row and row[LIFE].values == ALIVE


def is_tombstone(cell: Cell) -> bool:
    """Return whether the cell says that its row is gone."""
    return cell.group == LIFE and cell.values != ALIVE


def shown(key: Key, row: RowCells) -> Values | None:
    """Return the columns of a row as all see it; None if it is not there.

    A table of a later version is kept and passed on, but not shown.
    """
    if not is_alive(row) or key.table not in TABLES:
        return None
    columns: dict[str, Value] = {}
    for group, names in TABLES[key.table].groups.items():
        values = row[group].values if group in row else ()
        columns |= dict.fromkeys(names) | dict(zip(names, values, strict=False))
    return columns


def shows_else(key: Key, before: RowCells, after: RowCells) -> bool:
    """Return whether a row shows something else, be it only a value of another type.

    So does one that was not known and is heard of as gone: somebody may have it in a file.
    """
    if is_alive(before) != is_alive(after) or (not before and LIFE in after):
        return key.table in TABLES
    return is_alive(after) and ascii(shown(key, before)) != ascii(shown(key, after))


def written(key: Key, before: Values | None, after: Values | None) -> dict[str, tuple[Value, ...]]:
    """Return the values that a write puts into each group, so that `before` becomes `after`."""
    if after is None:
        return {} if before is None else {LIFE: GONE}
    changed: dict[str, tuple[Value, ...]] = {} if before is not None else {LIFE: ALIVE}
    for group, names in TABLES[key.table].groups.items():
        values = tuple(after[name] for name in names)
        if before is None or not _is_same(values, tuple(before[name] for name in names)):
            changed[group] = values
    return changed


def _is_same(one: tuple[Value, ...], other: tuple[Value, ...]) -> bool:
    """Compare values with their types: 1 and 1.0 are different values in a database."""
    return one == other and [type(value) for value in one] == [type(value) for value in other]


def check_row(key: Key, values: Values) -> None:
    """Raise ValueError if this cannot be a row, or some columns of one, on every POP."""
    table = TABLES.get(key.table)
    if table is None:
        raise ValueError(f"{key.table!r} is not replicated")
    if not is_text(key.id, MAX_ID_BYTES):
        raise ValueError(f"an id of {key.table} is not UTF-8 or longer than {MAX_ID_BYTES} bytes")
    columns = table.columns
    for name, value in values.items():
        if name not in columns:
            raise ValueError(f"{key.table} has no replicated column {name!r}")
        if not is_value(value):
            raise ValueError(
                f"{name} of {key.id!r} is none of: NULL, an integer of 64 bits, a finite number, "
                f"text of UTF-8 of at most {MAX_TEXT_BYTES} bytes"
            )


def is_value(value: object) -> bool:
    """Return whether a value may be in a cell."""
    if value is None:
        return True
    if type(value) is int:
        return -_INT_BOUND <= value < _INT_BOUND
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is str and is_text(value, MAX_TEXT_BYTES)


def is_text(text: str, max_bytes: int) -> bool:
    """Return whether this is text that can be sent."""
    if text.isascii():
        return len(text) <= max_bytes
    try:
        return len(text) <= max_bytes and len(text.encode()) <= max_bytes
    except UnicodeEncodeError:
        return False  # a surrogate, which SQLite lets pass


def digest_of(cell: Cell) -> int:
    """Return a number that stands for the cell, with all of its fields: equal only if it is."""
    return int.from_bytes(blake2b(_encode(cell), digest_size=DIGEST_BYTES).digest())


def size_of(cell: Cell) -> int:
    """Return about how many bytes the cell takes in a message, rather too many."""
    size = 80 + len(cell.key.table) + len(cell.group) + _size_of(cell.key.id)
    return size + sum(map(_size_of, cell.values))


def _size_of(value: Value) -> int:
    if isinstance(value, str):
        return 5 + (len(value) if value.isascii() else len(value.encode()))
    return 9
