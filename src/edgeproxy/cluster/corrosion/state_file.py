"""The rows that Corrosion has, read from its SQLite file, which nothing else may write.

Nothing in that file says what has changed, because changes from several POPs arrive in any order.
So it is compared with a copy, in a file of its own, in which each row has the number of the
comparison that found it changed; a position is such a number. The copy belongs to one actor, the
name that Corrosion gives to one state: with another one, or without the copy, no earlier position
counts.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeproxy.cluster.corrosion.statements import TOKENS
from edgeproxy.cluster.engine import Changes, EngineError, LostPositionError
from edgeproxy.core.cluster.rows import TABLES, Key, Table, Values, id_of

BUSY_SECS = 1.0
ACTOR = "SELECT hex(site_id) FROM s.crsql_site_id WHERE ordinal = 0"


class StateFile:
    """The file and the copy, for one thread. Corrosion makes the file when it starts first."""

    def __init__(self, path: Path, copy: Path) -> None:
        """Open the copy, or make it. Raises EngineError."""
        self.path = path
        self._version = -1  # of the file at the last comparison
        self._identity: tuple[int, int] | None = None  # of the file that is attached
        with self._naming_faults():
            self._connection = sqlite3.connect(
                f"{copy.absolute().as_uri()}?mode=rwc",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY_SECS,
            )
            self._make()

    def close(self) -> None:
        """Close both files."""
        self._connection.close()

    def last_token(self) -> str:
        """Return the token of the last commit, "" before the first. Raises EngineError."""
        if not self._attach():
            return ""
        with self._naming_faults():
            if not self._has(TOKENS):
                return ""
            found = self._connection.execute(f"SELECT token FROM s.{TOKENS}").fetchone()  # noqa: S608
            return "" if found is None else str(found[0])

    def changes(self, after: str) -> Changes:
        """Return what has changed since a position. Raises EngineError."""
        if self._attach():
            with self._naming_faults():
                self._look()
        copy_id, number, floor = self._facts()
        since_id, _, since = after.partition(":")
        if after and (since_id != copy_id or not floor <= int(since) <= number):
            raise LostPositionError("the state of Corrosion is another one, or its copy is")
        if after:
            self._drop_gone(int(since))
        return Changes(f"{copy_id}:{number}", self._changed_after(int(since or 0)))

    # -- the copy ----------------------------------------------------------------------

    def _make(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("BEGIN IMMEDIATE")
        for name, table in TABLES.items():
            keys = ", ".join(table.keys)
            listed = ", ".join((*table.keys, *table.columns, "is_gone", "number"))
            run(f"CREATE TABLE IF NOT EXISTS {name} ({listed}, PRIMARY KEY ({keys})) WITHOUT ROWID")
            run(f"CREATE INDEX IF NOT EXISTS {name}_number ON {name} (number)")
            run(f"CREATE INDEX IF NOT EXISTS {name}_gone ON {name} (number) WHERE is_gone")
        run("CREATE TABLE IF NOT EXISTS facts (copy_id TEXT, actor TEXT, number, floor)")
        if run("SELECT count(*) FROM facts").fetchone() == (0,):
            run("INSERT INTO facts VALUES (?, '', 0, 0)", (os.urandom(8).hex(),))
        run("COMMIT")

    def _facts(self) -> tuple[str, int, int]:
        found = self._connection.execute("SELECT copy_id, number, floor FROM facts").fetchone()
        return str(found[0]), int(found[1]), int(found[2])

    def _changed_after(self, number: int) -> dict[Key, Values | None]:
        found: dict[Key, Values | None] = {}
        for name, table in TABLES.items():
            listed = ", ".join((*table.keys, *table.columns))
            query = f"SELECT {listed}, is_gone FROM main.{name} WHERE number > ?"  # noqa: S608
            for *row, is_gone in self._connection.execute(query, (number,)):
                keys, values = tuple(row[: len(table.keys)]), row[len(table.keys) :]
                values_of = dict(zip(table.columns, values, strict=True))
                found[Key(name, id_of(keys))] = None if is_gone else values_of
        return found

    def _drop_gone(self, number: int) -> None:
        """Forget which rows had gone up to a position: the caller knows."""
        run = self._connection.execute
        for name in TABLES:
            gone = f"FROM main.{name} WHERE is_gone AND number <= ?"
            if run(f"SELECT 1 {gone} LIMIT 1", (number,)).fetchone() is not None:
                with self._writing():
                    run(f"DELETE {gone}", (number,))
                    run("UPDATE facts SET floor = ?", (number,))

    # -- comparing ---------------------------------------------------------------------

    def _look(self) -> None:
        """Let the copy be what the file is, if that has changed."""
        run = self._connection.execute
        (version,) = run("PRAGMA s.data_version").fetchone()
        if version == self._version or not self._has("crsql_site_id"):
            return
        (actor,) = run(ACTOR).fetchone()
        with self._writing():
            if (actor,) != run("SELECT actor FROM facts").fetchone():
                for name in TABLES:
                    run(f"DELETE FROM main.{name}")  # noqa: S608
                run(
                    "UPDATE facts SET copy_id = ?, actor = ?, number = 0, floor = 0",
                    (os.urandom(8).hex(), actor),
                )
            _, number, _ = self._facts()
            (version,) = run("PRAGMA s.data_version").fetchone()
            changed = 0
            for name, table in TABLES.items():
                if self._has(name):
                    changed += self._compare(name, table, number + 1)
            if changed:
                run("UPDATE facts SET number = ?", (number + 1,))
        self._version = version

    def _compare(self, name: str, table: Table, number: int) -> int:
        """Bring one table of the copy up to date; return how many rows have changed."""
        run = self._connection.execute
        keys = ", ".join(table.keys)
        same_key = " AND ".join(f"m.{column} = s.{column}" for column in table.keys)
        differs = " OR ".join(f"s.{column} IS NOT m.{column}" for column in table.columns)
        listed = ", ".join(f"s.{column}" for column in (*table.keys, *table.columns))
        query = (
            f"SELECT {listed} FROM s.{name} s LEFT JOIN main.{name} m ON {same_key} "  # noqa: S608
            f"WHERE m.number IS NULL OR m.is_gone OR {differs}"
        )
        rows = run(query).fetchall()
        places = ", ".join("?" * (len(table.keys) + len(table.columns)))
        replace = f"REPLACE INTO main.{name} VALUES ({places}, 0, {number})"  # noqa: S608
        self._connection.executemany(replace, rows)
        (here,) = run(f"SELECT count(*) FROM s.{name}").fetchone()  # noqa: S608
        (known,) = run(f"SELECT count(*) FROM main.{name} WHERE NOT is_gone").fetchone()  # noqa: S608
        gone = 0
        if here != known:
            gone = run(
                f"UPDATE main.{name} SET is_gone = 1, number = {number} "  # noqa: S608
                f"WHERE NOT is_gone AND ({keys}) NOT IN (SELECT {keys} FROM s.{name})"
            ).rowcount
        return len(rows) + gone

    # -- the connection ----------------------------------------------------------------

    def _attach(self) -> bool:
        """Return whether there is a file, and it is open."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            stat = None
        except OSError as error:
            raise EngineError(f"the state {self.path} cannot be read: {error.strerror}") from None
        identity = None if stat is None else (stat.st_dev, stat.st_ino)
        if identity != self._identity:
            with self._naming_faults():
                if self._identity is not None:
                    self._connection.execute("DETACH s")
                    self._identity = None
                if identity is not None:
                    location = f"{self.path.absolute().as_uri()}?mode=ro"
                    self._connection.execute("ATTACH ? AS s", (location,))
            self._identity, self._version = identity, -1
        return identity is not None

    def _has(self, name: str) -> bool:
        query = "SELECT 1 FROM s.sqlite_master WHERE type = 'table' AND name = ?"
        return self._connection.execute(query, (name,)).fetchone() is not None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _naming_faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise EngineError(f"the state {self.path} cannot be read: {error}") from None
