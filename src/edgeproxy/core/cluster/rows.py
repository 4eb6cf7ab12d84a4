"""The rows that are the same on every POP: their tables, keys and columns, and edits of them.

A row is known by its table and an id. An id is the primary key as text; a key of several columns is
a JSON array of them. Columns that are not listed here belong to one POP alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

Value = int | float | str | None
Values = Mapping[str, Value]
"""The columns of a row outside of its key, by name."""

BACKENDS = "backends"
ROUTES = "edgeproxy_routes"
LEASES = "edgeproxy_leases"


@dataclass(frozen=True)
class Table:
    """One replicated table.

    Attributes:
        keys: The columns of the primary key.
        groups: The other columns, by what changes together: concurrent edits of one row are both
            kept if they change different groups.
    """

    keys: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns outside of the key."""
        return tuple(name for names in self.groups.values() for name in names)


TABLES: Mapping[str, Table] = {
    BACKENDS: Table(
        ("id",),
        {
            "place": ("app", "region", "country", "wg_ip", "port"),
            "state": ("healthy", "deleted"),
            "weight": ("weight",),
            "limits": ("soft_limit", "hard_limit"),
        },
    ),
    ROUTES: Table(("pattern",), {"app": ("app",)}),
    LEASES: Table(("id", "home"), {"lease": ("country", "ended_at")}),
}


class Key(NamedTuple):
    """Names one row."""

    table: str
    id: str


class Edit(NamedTuple):
    """A change of one row: the columns that change, all of them for a new row; None deletes it."""

    key: Key
    values: Values | None


def id_of(key_values: tuple[str, ...]) -> str:
    """Return the id of a row with these values in the columns of its key."""
    return key_values[0] if len(key_values) == 1 else json.dumps(key_values)


def key_values(key: Key) -> tuple[str, ...]:
    """Return the values of the key's columns. Raises ValueError for an id of another shape."""
    columns = TABLES[key.table].keys
    if len(columns) == 1:
        return (key.id,)
    values = json.loads(key.id)
    is_key = isinstance(values, list) and len(values) == len(columns)
    if not is_key or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key.id!r} is not a key of {', '.join(columns)}")
    return tuple(values)
