"""The routing database on a PostgreSQL server as a source of backends.

The trigger of the schema notifies the store of a change. Without the trigger, a regular check finds
it: the server computes a fingerprint of the rows, and the store fetches them only if that differs.
Rows are fetched in small groups, so that the gate thread never waits long for the interpreter.

While the server is down, `link` reconnects. Checks fail at once meanwhile, so that the control
plane's other checks do not wait. A proxy that starts without the server uses a local file, if the
settings name one (`snapshot_file`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgeproxy.core.pacing import Pause, no_pause
from edgeproxy.errors import StoreError
from edgeproxy.log import EventLog
from edgeproxy.store import snapshot_file
from edgeproxy.store.postgres.connection import NO_TABLE, PostgresError
from edgeproxy.store.postgres.leases import withheld_in
from edgeproxy.store.postgres.link import Link
from edgeproxy.store.postgres.schema import (
    columns_of,
    columns_to_read,
    fingerprint,
    make_parts,
    missing_parts,
    routes_of,
)
from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl
from edgeproxy.store.snapshot import Bounds, Snapshot, snapshot_of

if TYPE_CHECKING:
    from edgeproxy.store.postgres.connection import PostgresConnection

log = EventLog("store")

ROWS_AT_ONCE = 250
"""Decoding this many rows takes about half a millisecond."""
SHARE_OF_TIME = 4
"""The pause after a read is at least this many times the length of the read."""
RETRY_SECS = 2.0
"""The pause after a check that failed although the server is up."""
SOON_SECS = 0.01
"""The delay after a notification, so that one read covers several edits."""

_Read = tuple[tuple[str, ...], list[Any], list[tuple[object, object]], dict[object, int]]


class PostgresStore:
    """Reads one routing database. One thread at a time may use it.

    Attributes:
        link: The connections to the server, also for edits.
        rest: Called every few rows of long work, to let other threads run.
    """

    def __init__(
        self,
        settings: PostgresSettings,
        rest: Pause = no_pause,
        wake: Callable[[], object] | None = None,
        *,
        makes: bool = True,
    ) -> None:
        """`wake` is called on another thread when a check is due; None: for a single read.

        With `makes`, the first read creates a missing table.
        """
        self.rest = rest
        self._settings = settings
        self._wake = wake
        self._makes = makes
        self.link = Link(settings, None if wake is None else self._noticed)
        self._fingerprint: tuple[str, ...] | None = None  # of the last good read
        self._kept: tuple[str, ...] | None = None  # the fingerprint of what is in the local file
        self._serves_kept = False  # the last table came from the local file
        self._unkept: Snapshot | None = None  # the table that could not be written there
        self._is_noticed = False
        self._wakes_at = 0.0
        self._is_ensured = False
        self._failed = False
        self._read_secs = 0.0
        self._read_at = 0.0

    @property
    def path(self) -> PostgresUrl:
        """The URL; as text it has no password."""
        return self.link.url

    def ensure(self) -> bool:
        """Create what the schema lacks; return whether anything was created.

        If the user may not create it but the table exists, the missing parts are logged. Without
        the table, raises StoreError.
        """
        missing = self.link.read(missing_parts)
        if "backends" in missing and not self._may_make():
            raise PostgresError(self.path, NO_TABLE)
        self._is_ensured = True
        if not missing:
            return False
        try:
            return bool(self.link.edit(make_parts))
        except StoreError as error:
            if "backends" in missing:
                self._is_ensured = False
                raise
            log.warning("schema_incomplete", missing=", ".join(missing), reason=error.reason)
            return False

    def _may_make(self) -> bool:
        """Return whether an empty table, created now, would take no backends away."""
        if self._serves_kept or not self._makes:
            return False
        path = self._settings.snapshot
        try:
            return path is None or not snapshot_file.load(path, self.rest).backends
        except StoreError:
            return True

    def changed(self) -> bool:
        """Return whether a `read` may return other backends than the last one."""
        if self._failed and (down := self.link.down) is not None:
            raise down.with_traceback(None)  # the traceback would grow with every check
        if self._fingerprint is None or self._is_noticed:
            return True
        with self._failing():
            current = self.link.read(self._look)
        if current == self._fingerprint and self._unkept is not None:
            self._keep(self._unkept)
        return current != self._fingerprint

    def read(self, wait_secs: float = 0.0) -> Snapshot:  # noqa: ARG002 — the settings say it
        """Return all backends.

        Raises `StoreError`, whose message says what to do. Before the first good read, the table
        in the local file is returned instead, if there is one.
        """
        is_first = self._read_at == 0.0 and not self._serves_kept
        try:
            with self._failing():
                snapshot = self._fetched()
        except StoreError as error:
            if not is_first or self._settings.snapshot is None:
                raise
            return self._loaded(error)
        self._keep(snapshot)
        return snapshot

    def interrupt(self) -> None:
        """Make a read that waits for the server fail at once."""
        self.link.interrupt()

    def close(self) -> None:
        """Close the connections to the server. A later `read` connects again."""
        self.link.close()
        self._fingerprint = None

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Check again soon after a fault, unless the new connection will cause a check."""
        self._failed = True
        try:
            yield
        except StoreError:
            if self.link.down is None:
                self._wake_in(RETRY_SECS)
            raise
        self._failed = False

    def _fetched(self) -> Snapshot:
        begun = time.monotonic()
        # A proxy creates what is missing; a command that reads once, as `explain` does, does not.
        if self._wake is not None and not self._is_ensured and self.ensure():
            log.info("database_created", path=self.path)
        self._is_noticed = False
        self._fingerprint = None
        fingerprint_read, rows, routes, withheld = self.link.read(self._rows)
        self._read_at = time.monotonic()
        self._read_secs = self._read_at - begun
        snapshot = snapshot_of(rows, routes, self.rest, withheld)
        self._fingerprint = fingerprint_read
        self._serves_kept = False
        return snapshot

    async def _look(self, connection: PostgresConnection) -> tuple[str, ...]:
        return await fingerprint(
            connection, columns_to_read(await columns_of(connection, self.path))
        )

    async def _rows(self, connection: PostgresConnection) -> _Read:
        columns = columns_to_read(await columns_of(connection, self.path))
        current = await fingerprint(connection, columns)
        routes = await routes_of(connection)
        withheld = await withheld_in(connection)
        names = ", ".join(columns)
        cursor = await connection.cursor(f"SELECT {names} FROM backends ORDER BY id")  # noqa: S608
        rows: list[Any] = []
        bounds = Bounds("backends")
        while some := await cursor.fetch(ROWS_AT_ONCE):
            for row in some:
                if (fault := bounds.fault_with(row)) is not None:
                    raise PostgresError(self.path, fault)
            rows += some
            self.rest()
        return current, rows, routes, withheld

    # -- the local file ---------------------------------------------------------------

    def _keep(self, snapshot: Snapshot) -> None:
        path = self._settings.snapshot
        if path is None or self._kept == self._fingerprint:
            self._unkept = None
            return
        try:
            snapshot_file.save(path, snapshot, self.rest)
        except StoreError as error:
            if self._unkept is None:
                log.warning("snapshot_not_written", reason=error)
            self._unkept = snapshot  # every check tries again
            return
        self._kept = self._fingerprint
        self._unkept = None

    def _loaded(self, fault: StoreError) -> Snapshot:
        path = self._settings.snapshot
        assert path is not None
        try:
            snapshot = snapshot_file.load(path, self.rest)
        except StoreError as error:
            raise StoreError(f"{fault}; {error}") from None
        self._serves_kept = True
        log.warning(
            "snapshot_used", path=path, backends=len(snapshot.backends), reason=fault.reason
        )
        return snapshot

    # -- notifications ---------------------------------------------------------------

    def _noticed(self, is_change: bool) -> None:
        """Ask for a check soon. On the link's thread."""
        self._is_noticed |= is_change
        rested = time.monotonic() - self._read_at
        self._wake_in(max(SOON_SECS, self._read_secs * SHARE_OF_TIME - rested))

    def _wake_in(self, secs: float) -> None:
        """Ask for a check after this time; all requests until then share it."""
        due = time.monotonic() + secs
        if self._wake is not None and not time.monotonic() < self._wakes_at <= due:
            self._wakes_at = due
            self.link.call_later(secs, self._wake)
