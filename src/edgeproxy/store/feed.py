"""Keeps the routing table equal to the routing database, through every fault of the database.

What was published last stays until something different can be read: a missing, locked,
damaged or emptied-out file never takes the backends away, rows that an operator deletes do.
A fault is one warning when it begins (and one for each further reason while it lasts) and
one line when it is over; a faulty row is one warning per change of its fault, up to `MAX_NAMED` at
once.

It has no timer and no thread: the control plane calls `poll`, from one thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgeproxy.core.pacing import Pause, empty, paced
from edgeproxy.errors import StoreError
from edgeproxy.log import EventLog
from edgeproxy.store.difference import difference
from edgeproxy.store.snapshot import SkippedRow, Snapshot
from edgeproxy.store.sqlite.database import TableMissingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.core.metrics import Metrics

FIRST_WAIT_SECS = 5.0
"""How long a start waits for another program's write; a poll simply comes again."""

MAX_NAMED = 1000
"""How many faulty rows are named at once: a table of nothing else would fill the log."""

log = EventLog("store")


class Store(Protocol):
    """Where backends come from. One thread at a time may use it.

    Attributes:
        path: The name of the database: a file, or a URL without its password.
        rest: Called every few rows of long work, to let other threads run.
    """

    @property
    def path(self) -> object:
        """The name of the database."""

    @property
    def rest(self) -> Pause:
        """The pause between the parts of long work."""

    def ensure(self) -> bool:
        """Create what the database lacks; return whether it lacked any. Raises `StoreError`."""

    def changed(self) -> bool:
        """Return whether a `read` may differ from the last one. Raises `StoreError`."""

    def read(self, wait_secs: float = ...) -> Snapshot:
        """Return all backends. Raises `StoreError`, whose message says what to do."""

    def interrupt(self) -> None:
        """Make a waiting read fail at once; from any thread."""

    def close(self) -> None:
        """Close all connections; a later `read` opens them again."""


class Feed:
    """Reads a store and publishes its content.

    Attributes:
        fault: Why the database cannot be read at present; "" if it can.
    """

    def __init__(
        self,
        store: Store,
        publish: Callable[[Snapshot], object],
        metrics: Metrics,
        before_read: Callable[[], object] = int,
        unused: Callable[[], frozenset[SkippedRow]] = frozenset,
    ) -> None:
        """`before_read` is called before a database that has changed is read again.

        `unused` returns the rows that are right as such, but that `publish` left out.
        """
        self._store = store
        self._before_read = before_read
        self._unused = unused
        self._publish = publish
        self._metrics = metrics
        self._published: Snapshot | None = None  # the last one
        self._is_unpublished = False  # what was read, because publishing it failed
        self._discarded: list[Backend] = []  # of the one that is not needed any more
        self._skipped: frozenset[SkippedRow] = frozenset()  # as logged
        self._reasons: dict[str, str] = {}  # of these, by id
        self.fault = ""
        self._faults: set[str] = set()  # logged in the present episode; empty: all is well

    def first(self, wait_secs: float = FIRST_WAIT_SECS, *, needs_table: bool = False) -> None:
        """Read and publish for the first time.

        Raises `StoreError` when the database cannot be read. One without a table counts as
        empty unless `needs_table`, so that a proxy can start before its database is filled.
        """
        try:
            snapshot = self._store.read(wait_secs)
        except TableMissingError as error:
            if needs_table:
                raise
            self.fault = error.reason
            self._faults.add(error.reason)
            log.warning("database_without_table", path=self._store.path, reason=error.reason)
            snapshot = Snapshot()
        else:
            self._metrics.database_up = True
        self._take(snapshot)

    def poll(self) -> bool:
        """Read if something changed; return whether a different table was published.

        Never raises for a fault of the database.
        """
        try:
            is_other = False
            if self._store.changed() or self._is_unpublished:
                self._before_read()
                self._is_unpublished = True
                is_other = self._take(self._store.read())
                self._is_unpublished = False
        except StoreError as error:
            self._metrics.reload_errors += 1
            self._metrics.database_up = False
            self._report(error)
            return False
        self._metrics.database_up = True
        self.fault = ""
        # Nobody else has them now, so they are freed one by one.
        empty(self._discarded, self._store.rest)
        if self._faults:  # only now: a reader of this event finds the table in force
            self._faults.clear()
            log.info("database_recovered", path=self._store.path)
        return is_other

    def note_hang(self) -> None:
        """Take note that a `poll` does not end; from any thread."""
        self._metrics.database_up = False
        self.fault = "it does not answer"

    @property
    def path(self) -> object:
        """The name of the database."""
        return self._store.path

    @property
    def skipped(self) -> frozenset[SkippedRow]:
        """The rows that cannot be used."""
        return self._skipped | self._unused()

    def why_skipped(self, backend_id: str) -> str | None:
        """Return why the row of this backend is not used; None if it is, or there is none."""
        reason = self._reasons.get(backend_id)
        if reason is None:
            unused = (row.reason for row in self._unused() if row.id == backend_id)
            reason = next(unused, None)
        return reason

    def _report(self, error: StoreError) -> None:
        self.fault = error.reason
        if error.reason not in self._faults:
            self._faults.add(error.reason)
            log.warning("database_unreadable", path=self._store.path, reason=error.reason)

    def _take(self, snapshot: Snapshot) -> bool:
        """Publish what was read if it is another table, and keep the backends of the discarded."""
        self._name_skipped(snapshot)
        before = self._published
        if before is not None and self._equal(snapshot, before):
            self._discarded = list(snapshot.backends)
            return False
        if before is not None and before.backends and not snapshot.backends:
            log.warning(
                "table_lost_all_backends", path=self._store.path, before=len(before.backends)
            )
        self._publish(snapshot)
        self._published = snapshot
        what = difference(before, snapshot, self._store.rest) if before is not None else {}
        log.info(
            "table_published",
            backends=len(snapshot.backends) - len(self._unused()),
            skipped=len(snapshot.skipped) + len(self._unused()),
            **what,
        )
        if before is not None:
            self._discarded = list(before.backends)
        return True

    def _equal(self, one: Snapshot, other: Snapshot) -> bool:
        """Return whether two snapshots make the same table."""
        if one.routes != other.routes or len(one.backends) != len(other.backends):
            return False
        pairs = paced(zip(one.backends, other.backends, strict=True), self._store.rest)
        return all(a == b for a, b in pairs)

    def _name_skipped(self, snapshot: Snapshot) -> None:
        new = [row for row in snapshot.skipped if row not in self._skipped]
        self._metrics.rows_skipped += len(new)
        for row in new[:MAX_NAMED]:
            log.warning("row_skipped", id=row.id, reason=row.reason)
        if len(new) > MAX_NAMED:
            log.warning(
                "rows_skipped", count=len(new) - MAX_NAMED, reason="further ones, not named"
            )
        self._skipped = frozenset(snapshot.skipped)
        self._reasons = {row.id: row.reason for row in snapshot.skipped}
