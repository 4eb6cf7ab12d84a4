"""What this POP last saw or wrote in its routing database, in a small file of its own.

The bridge finds edits by comparing with it. It also holds what the bridge was about to do, so that
a bridge that dies at any instant goes on where it stopped:

    outbox      edits on their way to the engine, with the token that they are committed under: a
                new bridge asks the engine whether it has that token
    pending     rows on their way to the routing database, with the marker that is written there in
                the same transaction: a new bridge looks whether the database has that marker

If the file is lost, nothing is: the database counts as one that somebody made anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from edgeproxy.core.cluster.rows import TABLES, Edit, Key, Values, id_of, key_values
from edgeproxy.store.sqlite.database import naming_faults

_VERSION = 1
_EARLIER_MARKERS = 10_000
"""How many of its own earlier markers a bridge knows: an older copy counts as made anew."""


class _Sql(NamedTuple):
    """What reads and writes one row of a table, by the columns of its key."""

    select: str
    replace: str
    delete: str


@cache
def _sql(name: str) -> _Sql:
    table = TABLES[name]
    where = " AND ".join(f"{key} = ?" for key in table.keys)
    columns, names = ", ".join(table.columns), (*table.keys, *table.columns)
    return _Sql(
        f"SELECT {columns} FROM {name} WHERE {where}",  # noqa: S608
        f"REPLACE INTO {name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",  # noqa: S608
        f"DELETE FROM {name} WHERE {where}",  # noqa: S608
    )


class Outbox(NamedTuple):
    """Edits that are being committed."""

    token: str
    edits: list[Edit]


class Pending(NamedTuple):
    """Rows that are being written to the routing database; None for one that goes."""

    marker: str
    rows: Mapping[Key, Values | None]


class Shadow:
    """The file of one bridge. For one thread at a time.

    Attributes:
        connection: The connection, to which the routing database is attached for comparing.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it. Raises StoreError."""
        self.path = path
        with naming_faults(path):
            self.connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rwc",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            self.connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = FULL")
            self._make()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of what follows, durably, or nothing."""
        with naming_faults(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise

    # -- rows ------------------------------------------------------------------------

    def row(self, key: Key) -> Values | None:
        """Return a row, None if there is none."""
        found = self.connection.execute(_sql(key.table).select, key_values(key)).fetchone()
        columns = TABLES[key.table].columns
        return None if found is None else dict(zip(columns, found, strict=True))

    def put(self, rows: Iterable[tuple[Key, Values | None]]) -> None:
        """Set rows whole; None removes one."""
        for key, values in rows:
            sql, keys = _sql(key.table), key_values(key)
            if values is None:
                self.connection.execute(sql.delete, keys)
            else:
                content = (values[name] for name in TABLES[key.table].columns)
                self.connection.execute(sql.replace, (*keys, *content))

    def apply(self, edits: Sequence[Edit]) -> None:
        """Change rows as edits say."""
        for key, values in edits:
            before = None if values is None else self.row(key)
            self.put([(key, values if before is None or values is None else {**before, **values})])

    def keys_of(self, table: str) -> set[Key]:
        """Return which rows of a table there are."""
        query = f"SELECT {', '.join(TABLES[table].keys)} FROM {table}"  # noqa: S608
        return {Key(table, id_of(row)) for row in self.connection.execute(query)}

    def count(self, table: str) -> int:
        """Return how many rows of a table there are."""
        (count,) = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        return int(count)

    # -- what is being done ------------------------------------------------------------

    @property
    def marker(self) -> str:
        """The marker of the last write to the routing database."""
        return self._get("marker")

    def knows(self, marker: str) -> bool:
        """Return whether this marker is of an earlier write."""
        query = "SELECT 1 FROM markers WHERE marker = ?"
        return self.connection.execute(query, (marker,)).fetchone() is not None

    def set_marker(self, marker: str) -> None:
        """Note the marker of a write that is done."""
        self._set("marker", marker)
        self.connection.execute("INSERT OR IGNORE INTO markers (marker) VALUES (?)", (marker,))
        self.connection.execute(
            "DELETE FROM markers WHERE number <= (SELECT max(number) FROM markers) - ?",
            (_EARLIER_MARKERS,),
        )

    def forget(self) -> None:
        """Forget everything, as if the routing database had never been seen."""
        for table in (*TABLES, "progress", "markers"):
            self.connection.execute(f"DELETE FROM {table}")  # noqa: S608

    @property
    def file(self) -> str:
        """Which file the routing database was at the last write."""
        return self._get("file")

    @file.setter
    def file(self, identity: str) -> None:
        self._set("file", identity)

    @property
    def position(self) -> str:
        """How far what the engine has was written to the routing database."""
        return self._get("position")

    @position.setter
    def position(self, position: str) -> None:
        self._set("position", position)

    @property
    def outbox(self) -> Outbox | None:
        """The edits that are being committed."""
        text = self._get("outbox")
        if not text:
            return None
        token, edits = json.loads(text)
        return Outbox(token, [Edit(Key(*key), values) for key, values in edits])

    @outbox.setter
    def outbox(self, outbox: Outbox | None) -> None:
        self._set("outbox", "" if outbox is None else json.dumps(outbox))

    @property
    def pending(self) -> Pending | None:
        """The rows that are being written to the routing database."""
        text = self._get("pending")
        if not text:
            return None
        marker, rows = json.loads(text)
        return Pending(marker, {Key(*key): values for key, values in rows})

    @pending.setter
    def pending(self, pending: Pending | None) -> None:
        text = "" if pending is None else json.dumps([pending.marker, list(pending.rows.items())])
        self._set("pending", text)

    def _get(self, name: str) -> str:
        query = "SELECT value FROM progress WHERE name = ?"
        found = self.connection.execute(query, (name,)).fetchone()
        return "" if found is None else str(found[0])

    def _set(self, name: str, value: str) -> None:
        self.connection.execute("REPLACE INTO progress (name, value) VALUES (?, ?)", (name, value))

    def _make(self) -> None:
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if version == _VERSION:
            return
        self.connection.execute("BEGIN IMMEDIATE")
        for name, table in TABLES.items():
            keys = ", ".join(table.keys)
            # Without types, so that each value stays what it is.
            columns = ", ".join((*table.keys, *table.columns))
            self.connection.execute(f"DROP TABLE IF EXISTS {name}")
            self.connection.execute(
                f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({keys})) WITHOUT ROWID"
            )
        for statement in (
            "DROP TABLE IF EXISTS progress",
            "CREATE TABLE progress (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
            "DROP TABLE IF EXISTS markers",
            "CREATE TABLE markers (number INTEGER PRIMARY KEY, marker TEXT UNIQUE)",
            f"PRAGMA user_version = {_VERSION}",
            "COMMIT",
        ):
            self.connection.execute(statement)
