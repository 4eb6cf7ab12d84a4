"""Carries edits between the routing database and the engine.

A round has two halves. The first takes what somebody has edited in the routing database to the
engine, and the second takes what the engine has from elsewhere to the routing database:

    look        compare the file with the shadow, and judge the differences (`core/cluster/capture`)
    outbox      note the edits and a new token in the shadow
    commit      hand them to the engine
    settle      the edits are in the shadow, and no longer in the outbox

    changes     ask the engine what has changed
    pending     note the rows and a new marker in the shadow
    write       write both to the file, unless somebody has edited it meanwhile
    settle      the rows are in the shadow, and no longer pending

Each line is one durable step. A bridge may die between any two: `_recover` finishes what was under
way, by asking the engine for its last token and the file for its marker. So no edit is lost, and
none is taken twice, which could undo a newer one.

The bridge never waits for another POP. It decides nothing about conflicts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from edgeproxy.cluster.bridge.routing_file import Look, MovedError, RoutingFile
from edgeproxy.cluster.bridge.shadow import Outbox, Pending, Shadow
from edgeproxy.cluster.engine import Changes, Engine, LostPositionError
from edgeproxy.core.cluster.capture import Lineage, Verdict, judge
from edgeproxy.core.cluster.rows import Edit, Key, Values
from edgeproxy.log import EventLog
from edgeproxy.store.sqlite.database import TableMissingError, create
from edgeproxy.store.sqlite.edit_watch import stamp_of

log = EventLog("cluster")

ROWS_AT_ONCE = 2500
"""Rows of one write, unless more undo an accident: the file is locked for a tenth of a second."""
MISSING_SECS = 2.0
"""How long a file or table may be missing before it is restored: somebody may be replacing it."""
MARK_SECS = 1.0
"""When edits of the file get a marker of their own, so that an older copy of it is told apart."""
MAX_NAMED = 20
"""How many rows a line in the log names."""


class Bridge:
    """The bridge of one POP. For one thread, which calls `round` when something may have changed.

    `clock` returns Unix seconds, and `monotonic` monotonic seconds.

    Attributes:
        path: The routing database.
        edits_total: How many edits of it were committed.
        rows_total: How many rows were written to it.
        braked_total: How many rows that vanished at once were restored.
    """

    def __init__(
        self,
        path: Path,
        shadow: Shadow,
        engine: Engine,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.edits_total = 0
        self.rows_total = 0
        self.braked_total = 0
        self._shadow = shadow
        self._engine = engine
        self._clock = clock
        self._monotonic = monotonic
        self._file = RoutingFile(path, shadow)
        self._is_recovered = False
        self._token = ""  # of the last commit
        self._is_first = True
        self._missing_since: float | None = None
        self._undone: dict[Key, Values | None] = {}  # what the file must get back at once
        self._meant: set[Key] = set()
        self._needs_marker = False
        self._named: set[Key] = set()
        self._waits_for_others = False
        self._edited_since: float | None = None  # without a new marker since

    @property
    def refused(self) -> int:
        """How many rows the tables of the routing database do not take."""
        return len(self._file.refused)

    def close(self) -> None:
        """Let go of the routing database."""
        self._file.close()

    def round(self) -> bool:
        """Carry what has changed, in both directions; return whether all of it is carried.

        Raises StoreError and EngineError: then the next round begins by finishing this one.
        """
        try:
            if not self._is_recovered:
                self._recover()
            if self._waits_for_others and not self._engine.is_ready():
                return True  # the engine wakes the worker
            if self._is_missing():
                return False
            if self._file.has_changed() and not self._take():
                return False
            since = self._edited_since
            self._needs_marker |= since is not None and self._monotonic() - since >= MARK_SECS
            return self._bring()
        except LostPositionError:
            # What the engine had is not what is known here: rows must not go because it lacks them.
            log.warning("replication_state_lost", hint="the rows here are compared anew")
            with self._shadow.transaction():
                self._shadow.forget()
            self._file.close()
            return False
        except BaseException:
            self._is_recovered = False
            self._file.close()
            raise

    def _is_missing(self) -> bool:
        """Return whether the file is missing and not to be restored yet."""
        if os.path.lexists(self.path):
            return False
        if self._waits_for_it():
            return True
        self._file.close()
        if create(self.path):
            log.warning("routing_database_restored", path=self.path, reason="it was missing")
        return False

    def _waits_for_it(self) -> bool:
        """Return whether somebody may be about to make what is missing."""
        if self._missing_since is None:
            self._missing_since = self._monotonic()
        return not self._has_waited()

    def _has_waited(self) -> bool:
        since = self._missing_since
        return since is not None and self._monotonic() - since >= MISSING_SECS

    # -- from the file to the engine ---------------------------------------------------

    def _take(self) -> bool:
        """Commit what has been edited, note what is to be undone; return whether that was done."""
        try:
            look = self._file.look(restores=self._has_waited())
        except TableMissingError:
            if self._waits_for_it():
                self._file.close()  # so that the next round looks again
                return False
            raise
        self._missing_since = None
        if look.lineage is Lineage.UNKNOWN:
            self._waits_for_others = not self._engine.is_ready()
            if self._waits_for_others:
                self._file.close()
                return False
        verdict = judge(look.differences, look.lineage, is_replaced=look.is_replaced)
        self._undone = {key: self._shadow.row(key) for key in verdict.undone}
        self._meant = look.differences.meant
        self._needs_marker |= look.is_replaced or look.lineage is not Lineage.CURRENT
        self._tell(look, verdict)
        edits = verdict.edits
        if look.lineage is Lineage.UNKNOWN:
            # A row of a file that nobody knows comes back from no delete that the cluster knows.
            elsewhere = self._known_elsewhere({edit.key for edit in edits})
            edits = [edit for edit in edits if edit.key not in elsewhere]
            self._undone |= elsewhere
        at_ms = self._edited_at_ms()
        for first in range(0, len(edits), ROWS_AT_ONCE):
            self._commit(edits[first : first + ROWS_AT_ONCE], at_ms)
        self._is_first = False
        return True

    def _known_elsewhere(self, keys: set[Key]) -> dict[Key, Values | None]:
        """Return what the engine has of these rows since its changes were brought last."""
        found: dict[Key, Values | None] = {}
        for changes in self._pages() if keys else ():
            found |= {key: changes.rows[key] for key in keys & changes.rows.keys()}
        return found

    def _pages(self) -> Iterator[Changes]:
        """Yield what has changed in the engine, page by page."""
        position, has_more = self._shadow.position, True
        while has_more:
            changes = self._engine.changes(position)
            yield changes
            position, has_more = changes.position, changes.has_more

    def _commit(self, edits: list[Edit], at_ms: int) -> None:
        outbox = Outbox(os.urandom(8).hex(), edits)
        with self._shadow.transaction():
            self._shadow.outbox = outbox
        self._engine.commit(edits, outbox.token, self._token, at_ms)
        self._token = outbox.token
        self.edits_total += len(edits)
        self._settle_outbox(outbox)
        if self._edited_since is None:
            self._edited_since = self._monotonic()

    def _settle_outbox(self, outbox: Outbox) -> None:
        with self._shadow.transaction():
            self._shadow.apply(outbox.edits)
            self._shadow.outbox = None

    def _edited_at_ms(self) -> int:
        """Return when the edits were made: before a start, when the file was written."""
        now = self._clock()
        if self._is_first:
            files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
            written = [stamp[3] / 1e9 for stamp in map(stamp_of, files) if stamp is not None]
            now = min(now, max(written, default=now))
        return int(now * 1000)

    def _tell(self, look: Look, verdict: Verdict) -> None:
        if verdict.braked:
            self.braked_total += verdict.braked
            log.error(
                "mass_delete_undone",
                path=self.path,
                rows=verdict.braked,
                hint="rows that vanish at once are restored: `edgeproxy node delete` deletes them",
            )
        elif verdict.undone:
            log.warning(
                "routing_database_restored",
                path=self.path,
                rows=len(verdict.undone),
                reason=f"lineage {look.lineage.value}",
            )

    # -- from the engine to the file ---------------------------------------------------

    def _bring(self) -> bool:
        """Write what has changed elsewhere; return whether all of it is written."""
        for changes in self._pages():
            if not self._bring_rows(changes.rows):
                return False
            if changes.position != self._shadow.position:
                with self._shadow.transaction():
                    self._shadow.position = changes.position
        return True

    def _bring_rows(self, rows: Mapping[Key, Values | None]) -> bool:
        # The first marker says that all the rest is an edit, so what is to be undone goes with it.
        due = {key: rows.get(key, values) for key, values in self._undone.items()}
        at_once = max(len(due), ROWS_AT_ONCE)
        due |= {key: values for key, values in rows.items() if values != self._shadow.row(key)}
        while due or self._needs_marker or self._meant:
            part = dict(islice(due.items(), at_once))
            try:
                self._write(part)
            except MovedError:
                return False
            for key in part:
                del due[key]
            self._undone = {}
            self._meant = set()
            self._needs_marker = False
            self._edited_since = None
        return True

    def _write(self, rows: Mapping[Key, Values | None]) -> None:
        pending = Pending(os.urandom(8).hex(), rows)
        with self._shadow.transaction():
            self._shadow.pending = pending
        written = self._file.write(rows, pending.marker, self._meant)
        self.rows_total += len(rows)
        self._settle_pending(pending, written)
        new = [key for key in self._file.refused if key not in self._named]
        for key in new[:MAX_NAMED]:
            reason = self._file.refused[key]
            log.warning("row_refused", table=key.table, id=key.id, reason=reason)
        self._named = set(self._file.refused)

    def _settle_pending(self, pending: Pending, written: Mapping[Key, Values | None]) -> None:
        with self._shadow.transaction():
            self._shadow.put(written.items())
            self._shadow.set_marker(pending.marker)
            self._shadow.file = self._file.identity
            self._shadow.pending = None

    # -- after a start ---------------------------------------------------------------

    def _recover(self) -> None:
        """Finish what an earlier bridge was doing when it died."""
        outbox, pending = self._shadow.outbox, self._shadow.pending
        self._token = self._engine.last_token()
        if outbox is not None:
            if self._token == outbox.token:
                self._settle_outbox(outbox)
            else:
                # The next look finds the edits again. From now on, nothing of them can arrive.
                fence = os.urandom(8).hex()
                self._engine.commit([], fence, self._token, int(self._clock() * 1000))
                self._token = fence
                with self._shadow.transaction():
                    self._shadow.outbox = None
        if pending is not None and os.path.lexists(self.path):
            if self._file.marker() == pending.marker:
                self._settle_pending(pending, pending.rows)
            else:
                with self._shadow.transaction():
                    self._shadow.pending = None
        self._is_recovered = True
