"""Decides which differences of a routing database are edits, and which are to be undone.

Anybody may edit the database with any tool, and a file may vanish, be replaced, or be emptied. What
is there is compared with what this POP last saw or wrote there. Each database that this POP has
written carries a marker, a new one with each write, so its lineage is known:

    lineage     differences of values   rows that are new   rows that are gone
    CURRENT     edits                   edits               deletes, unless they are braked
    EARLIER     undone                  undone              restored
    UNKNOWN     undone                  edits               restored

EARLIER is an old copy, such as a backup: its rows would undo newer changes everywhere. UNKNOWN is
a database that somebody made anew. An edit is never a mere absence there.

The brake: in a file that took the place of another, an absence is no delete. Nor is it if more
than `MOST_SHARE` of a table, and more than `FEW_ROWS`, vanish at once, or all of it. What an
operator deletes by a command is `meant`, and never braked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from edgeproxy.core.cluster.rows import BACKENDS, LEASES, TABLES, Edit, Key, Values, key_values

FEW_ROWS = 10
MOST_SHARE = 0.2


class Lineage(Enum):
    """What a database has to do with what this POP wrote last."""

    CURRENT = "current"
    EARLIER = "earlier"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Differences:
    """Where a database differs from what was last seen or written there.

    Attributes:
        present: The rows that are new or have other values.
        known: The rows of these that were there before, as they were.
        gone: The rows that were there before and are not any more.
        meant: The rows that a command has deleted on purpose.
        counts: How many rows each table had before.
    """

    present: dict[Key, Values] = field(default_factory=dict)
    known: dict[Key, Values] = field(default_factory=dict)
    gone: set[Key] = field(default_factory=set)
    meant: set[Key] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Verdict:
    """What to do about differences.

    Attributes:
        edits: What somebody has changed here, for all POPs.
        undone: The rows that get back what they were before.
        braked: How many rows of these have vanished at once.
    """

    edits: list[Edit]
    undone: set[Key]
    braked: int = 0


def judge(found: Differences, lineage: Lineage, *, is_replaced: bool) -> Verdict:
    """Return which differences are edits. `is_replaced`: another file has taken the place."""
    if lineage is Lineage.EARLIER:
        return Verdict([], {*found.present, *found.gone})
    if lineage is Lineage.UNKNOWN:
        new = [Edit(key, found.present[key]) for key in found.present.keys() - found.known.keys()]
        return Verdict(new, {*found.known, *found.gone})
    edits = [_edit(key, values, found.known.get(key)) for key, values in found.present.items()]
    kept = _not_deleted(found, is_replaced)
    edits += [Edit(key, None) for key in found.gone - kept]
    return Verdict(edits, kept, 0 if is_replaced else len(kept))


def _edit(key: Key, values: Values, before: Values | None) -> Edit:
    """Return the edit that makes a row what it is now, in whole groups of columns."""
    if before is None:
        return Edit(key, values)
    changed: dict[str, object] = {}
    for names in TABLES[key.table].groups.values():
        if any(values[name] != before[name] for name in names):
            changed |= {name: values[name] for name in names}
    return Edit(key, changed)  # type: ignore[arg-type]


def _not_deleted(found: Differences, is_replaced: bool) -> set[Key]:
    """Return the rows whose absence is no delete."""
    absent = {key for key in found.gone if _row_of(key) not in found.meant}
    # The leases of a backend go with its row, by a trigger: they share its verdict.
    with_row = {key for key in absent if key.table == LEASES and _row_of(key) in found.gone}
    braked: set[Key] = set()
    for table, count in found.counts.items():
        some = {key for key in absent - with_row if key.table == table}
        if is_replaced or _are_too_many(len(some), count):
            braked |= some
    return braked | {key for key in with_row if _row_of(key) in braked}


def _are_too_many(gone: int, count: int) -> bool:
    return gone > max(FEW_ROWS, count * MOST_SHARE) or gone == count > 1


def _row_of(key: Key) -> Key:
    """Return the row that a key depends on: a lease on its backend."""
    return Key(BACKENDS, key_values(key)[0]) if key.table == LEASES else key
