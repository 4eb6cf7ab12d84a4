"""Writes rows to the tables of the routing database, which may have CHECKs and triggers of anybody.

A table that refuses one row still gets all others. The database is attached as `r`; the caller
begins and ends the transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from edgeproxy.core.cluster.rows import TABLES, Key, Value, Values, key_values
from edgeproxy.store.sqlite.nodes import REFUSING


class _Sql(NamedTuple):
    """What reads and writes exactly one row of a table, by the columns of its key."""

    select: str
    update: str
    insert: str
    delete: str


class RowWriter:
    """The writer of one connection.

    Attributes:
        refused: The rows that their tables did not take when they were written last, and why.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.refused: dict[Key, str] = {}
        self._run = connection.execute

    def write(
        self, rows: Mapping[Key, Values | None], tables: Mapping[str, Collection[str]]
    ) -> dict[Key, Values | None]:
        """Set rows, None removes one; return what the tables made of them.

        `tables` are the tables that there are, with their columns. Raises sqlite3.Error for
        anything but a refused row.
        """
        written: dict[Key, Values | None] = {}
        for name, table in TABLES.items():
            keys = sorted(key for key in rows if key.table == name)
            if keys:
                columns = tuple(each for each in table.columns if each in tables[name])
                if not self._try(keys, rows, columns):
                    for key in keys:
                        self._try([key], rows, columns)
                written |= {key: self._read(key, rows[key], columns) for key in keys}
        return written

    def _try(
        self, keys: Sequence[Key], rows: Mapping[Key, Values | None], columns: tuple[str, ...]
    ) -> bool:
        """Set all of these rows; if one is refused none, and return False."""
        self._run("SAVEPOINT some")
        try:
            for key in keys:
                self._set(key, rows[key], columns)
                self.refused.pop(key, None)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in REFUSING:
                raise
            self._run("ROLLBACK TO some")
            self._run("RELEASE some")
            if len(keys) == 1:
                self.refused[keys[0]] = str(error)
            return False
        self._run("RELEASE some")
        return True

    def _set(self, key: Key, values: Values | None, columns: tuple[str, ...]) -> None:
        sql, content = _sql(key.table, columns), _keys(key)
        if values is None:
            self._run(sql.delete, content)
            return
        content |= {name: values[name] for name in columns}
        if self._run(sql.update, content).rowcount == 0:
            self._run(sql.insert, content)

    def _read(self, key: Key, wanted: Values | None, columns: tuple[str, ...]) -> Values | None:
        """Return what a row is now: a trigger, a type or a CHECK may have changed what was set."""
        found = self._run(_sql(key.table, columns).select, _keys(key)).fetchone()
        if found is None:
            return None
        values = dict(wanted or dict.fromkeys(TABLES[key.table].columns))
        return values | dict(zip(columns, found, strict=True))


@cache
def _sql(table: str, columns: tuple[str, ...]) -> _Sql:
    # A column may be declared so that 'Node' equals 'node'; the first comparison uses its index.
    keys = TABLES[table].keys
    where = " AND ".join(f"{name} = :{name} AND {name} = :{name} COLLATE BINARY" for name in keys)
    pairs = ", ".join(f"{name} = :{name}" for name in columns)
    names = (*keys, *columns)
    places = ", ".join(f":{name}" for name in names)
    return _Sql(
        f"SELECT {', '.join(columns)} FROM r.{table} WHERE {where}",  # noqa: S608
        f"UPDATE r.{table} SET {pairs} WHERE {where}",  # noqa: S608
        f"INSERT INTO r.{table} ({', '.join(names)}) VALUES ({places})",  # noqa: S608
        f"DELETE FROM r.{table} WHERE {where}",  # noqa: S608
    )


def _keys(key: Key) -> dict[str, Value]:
    return dict(zip(TABLES[key.table].keys, key_values(key), strict=True))
