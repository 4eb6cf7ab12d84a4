"""The SQLite file under a node's state: creates it, opens it, names its faults.

Every fault of SQLite or of the file becomes a `StateError` here and nowhere else, and its text says
what to do. One process uses the file at a time: it holds the lock until it ends. So it has no
memory in common with other processes, and a copy of a running POP cannot use its file too.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edgeproxy.errors import StateError, reason_of


class StateDamagedError(StateError):
    """The file is damaged."""


SCHEMA_VERSION = 1
_APPLICATION_ID = 0x45505354  # EPST
_LOCK_WAIT_SECS = 5.0
_CACHE_KIB = 8 << 10
_LOG_BYTES = 16 << 20
_DAMAGED = "is damaged"

_CELL = """
    tbl TEXT NOT NULL, id TEXT NOT NULL, grp TEXT NOT NULL,
    stamp INTEGER NOT NULL, origin BLOB NOT NULL, seq INTEGER NOT NULL,
    vals BLOB NOT NULL, is_gone INTEGER NOT NULL
"""

_SCHEMA = f"""
CREATE TABLE cells ({_CELL}, PRIMARY KEY (tbl, id, grp)) WITHOUT ROWID;
CREATE INDEX cells_by_dot ON cells (origin, seq);
CREATE INDEX tombstones ON cells (tbl, id) WHERE is_gone = 1;
CREATE TABLE positions (
    tbl TEXT NOT NULL, id TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (tbl, id)
) WITHOUT ROWID;
CREATE INDEX rows_by_position ON positions (position);
CREATE TABLE heads (
    origin BLOB PRIMARY KEY, seq INTEGER NOT NULL, chain BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE dropped (origin BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    facts BLOB NOT NULL, digest BLOB NOT NULL, position INTEGER NOT NULL
);
CREATE TABLE identity (id BLOB NOT NULL);
INSERT INTO identity VALUES (randomblob(8));
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""  # noqa: S608


class StateDatabase:
    """An open file.

    Attributes:
        connection: The only one. Threads may share it, one at a time.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, created if there is none; wait up to 5 s for the process that uses it."""
        self._path = path
        with self.faults():
            if not os.path.lexists(path):
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self.connection = sqlite3.connect(
                path, timeout=_LOCK_WAIT_SECS, isolation_level=None, check_same_thread=False
            )
            try:
                self._open()
            except BaseException:
                self.connection.close()
                raise

    def _open(self) -> None:
        run = self.connection.execute
        # Before the first look at the log: then there is no memory shared with other processes.
        run("PRAGMA locking_mode = EXCLUSIVE")
        run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        run("PRAGMA mmap_size = 0")
        is_new = self._check_kind()
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        run("BEGIN IMMEDIATE")
        if is_new:
            for statement in _SCHEMA.split(";"):
                run(statement)
        run("COMMIT")
        # What is laid aside is for this process alone, so it needs not reach the disk.
        run(f"CREATE TEMP TABLE staged ({_CELL})")
        (verdict,) = run("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    def _check_kind(self) -> bool:
        """Return whether the file is empty; raise StateError for one of another kind."""
        run = self.connection.execute
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables:
            return True
        (kind,) = run("PRAGMA application_id").fetchone()
        if kind != _APPLICATION_ID:
            raise StateError(
                f"{self._path} is a database, but not the state of a cluster: name another file"
            )
        (version,) = run("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise StateError(
                f"{self._path} is of schema {version}, and this edgeproxy knows {SCHEMA_VERSION}: "
                f"use the edgeproxy that wrote it, or {self._way_out()}"
            )
        return False

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn the faults of SQLite and of the file into `StateError`."""
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError, OSError) as error:
            fault = self._fault(error)
            kind = StateDamagedError if fault.startswith(_DAMAGED) else StateError
            raise kind(f"{self._path} {fault}") from error

    def _fault(self, error: Exception) -> str:
        if isinstance(error, OSError):
            return f"cannot be created: {reason_of(error)}"
        code = getattr(error, "sqlite_errorcode", None)
        primary = sqlite3.SQLITE_CORRUPT if code is None else code & 0xFF
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return "is in use by another process: stop that, or name another file"
        if primary == sqlite3.SQLITE_FULL:
            return "cannot grow: make room on its disk; nothing has changed"
        if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return f"cannot be written ({reason_of(error)}): make it and its folder writable"
        if isinstance(error, sqlite3.ProgrammingError):
            return f"cannot be used: {reason_of(error)}"
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            return f"{_DAMAGED} ({reason_of(error)}): {self._way_out()}"
        return f"cannot be used: {reason_of(error)}"

    def _way_out(self) -> str:
        return (
            f"move {self._path.name} and {self._path.name}-wal away and start again; all comes "
            "back from the other POPs, but for edits made here that none of them has got"
        )
