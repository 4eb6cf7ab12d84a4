"""The routing database in an SQLite file as a source of backends.

People edit the file with any tool while the proxy runs, replace it, overwrite it or delete it. Two
cheap signs show each of these. The identity, size and times of the file show that it was replaced
or overwritten. `PRAGMA data_version`, on the connection of the last read, shows commits of other
programs, also while they are still in a write-ahead log. `edit_watch` says when it is time to
look.

A view that never ends is read up to a size and a deadline.

Every read opens the file anew, so no cache holds rows of an earlier file. Between calls no lock is
held, except the shared one by which SQLite marks a WAL database as in use. The store changes no
row, and creates a file only in `ensure`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeproxy.core.backends.rows import COUNTRY
from edgeproxy.core.pacing import Pause, no_pause
from edgeproxy.store.snapshot import Snapshot, snapshot_of
from edgeproxy.store.sqlite.database import (
    DEADLINE_SECS,
    READ_WAIT_SECS,
    Connection,
    DatabaseError,
    bound,
    connect,
    create,
    naming_faults,
    read_routes,
    read_rows,
)
from edgeproxy.store.sqlite.edit_watch import EditWatch, stamp_of
from edgeproxy.store.sqlite.leases import read_countries, read_withheld

_Read = tuple[int, list[dict[str, object]], list[tuple[object, object]], dict[object, int]]


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the routing database is and how soon an edit of it is followed.

    Attributes:
        path: The SQLite file.
        reload_secs: Seconds between two checks for changes that nothing has told of; more than 0.
    """

    path: Path = Path("routing.db")
    reload_secs: float = 5.0


class SqliteStore:
    """Reads one routing database. One thread at a time may use it."""

    def __init__(
        self,
        path: Path,
        rest: Pause = no_pause,
        wake: Callable[[], object] | None = None,
        deadline_secs: float = DEADLINE_SECS,
    ) -> None:
        """`wake` is called on another thread when a check is due; None: for a single read.

        `deadline_secs` is how long a read may take.
        """
        self._watch = None if wake is None else EditWatch(path, wake)
        self._deadline_secs = deadline_secs
        self.path = path
        self.rest = rest
        self._connection: Connection | None = None  # of the last good read
        self._data_version = 0
        self._stamp: tuple[int, ...] | None = None
        self._reading: Connection | None = None
        self._is_interrupted = False

    def ensure(self) -> bool:
        """Create the file with its table if it is missing; return whether it was.

        Raises `StoreError` when it cannot be created. Never touches an existing file.
        """
        return create(self.path)

    def changed(self) -> bool:
        """Return whether a `read` may return other backends than the last one.

        True as long as the last read failed. Raises `StoreError` when the database is
        locked for longer than a read waits.
        """
        if self._connection is None or self._stamp != self._file_stamp():
            return True
        self._reading = self._connection
        bound(self._connection, DEADLINE_SECS, is_stopped=lambda: self._is_interrupted)
        with self._naming_faults():
            return _data_version(self._connection) != self._data_version

    def read(self, wait_secs: float = READ_WAIT_SECS) -> Snapshot:
        """Return all backends, waiting up to `wait_secs` for another program's write.

        Raises `StoreError`, whose message says what to do, when the file is missing,
        locked, damaged or has no table of the documented columns.
        """
        began_at = time.monotonic()
        if self._watch is not None:
            self._watch.begin()
        earlier, self._connection = self._connection, None
        stamp = self._file_stamp()  # before the read: a change during it shows afterwards
        try:
            with self._naming_faults():
                connection = self._reading = connect(self.path, wait_secs)
                stamp = self._file_stamp() if connection.is_immutable else stamp
                try:
                    bound(connection, self._deadline_secs, self.rest, lambda: self._is_interrupted)
                    data_version, rows, routes, withheld = self._read(connection)
                except BaseException:
                    connection.close()
                    raise
        finally:
            # Not sooner: the last connection that closes a WAL database rewrites the file, and
            # locks all others out for that moment.
            if earlier is not None:
                earlier.close()
        if connection.is_immutable and stamp != self._file_stamp():
            connection.close()
            raise DatabaseError(self.path, "was changed while it was read: it is read again")
        self._connection, self._data_version, self._stamp = connection, data_version, stamp
        snapshot = snapshot_of(rows, routes, self.rest, withheld)
        if self._watch is not None:
            self._watch.note_read(began_at)
        return snapshot

    def _read(self, connection: sqlite3.Connection) -> _Read:
        connection.execute("PRAGMA query_only = 1")
        connection.execute("BEGIN")  # the version belongs to these rows
        data_version = _data_version(connection)
        rows = read_rows(connection, self.path, self.rest)
        countries = read_countries(connection, self.path)
        if countries and rows and COUNTRY not in rows[0]:
            for row in rows:
                row[COUNTRY] = countries.get(row["id"])
        withheld = read_withheld(connection, self.path)
        routes = read_routes(connection, self.path)
        connection.execute("COMMIT")
        # A first read may wait longer than the later checks on this connection.
        connection.execute(f"PRAGMA busy_timeout = {READ_WAIT_SECS * 1000:.0f}")
        return data_version, rows, routes, withheld

    def interrupt(self) -> None:
        """Make a read that is under way fail, and any later one."""
        self._is_interrupted = True
        if self._watch is not None:
            self._watch.end()
        reading = self._reading
        if reading is not None:
            with suppress(sqlite3.ProgrammingError):  # it is closed
                reading.interrupt()

    def close(self) -> None:
        """Close the file. A later `read` opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _naming_faults(self) -> Iterator[None]:
        try:
            with naming_faults(self.path):
                yield
        except DatabaseError:
            if self._is_interrupted:
                raise DatabaseError(self.path, "is left unread: this process stops") from None
            raise

    def _file_stamp(self) -> tuple[int, ...] | None:
        stamp = stamp_of(self.path)
        if stamp is not None and self._reading is not None and self._reading.is_immutable:
            # SQLite would not look at a log that has come into being since.
            stamp += stamp_of(self.path.with_name(f"{self.path.name}-wal")) or ()
        return stamp


def _data_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)
