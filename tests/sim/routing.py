"""The routing database of one POP, its real bridge, and the people who edit it.

The bridge may commit what somebody has edited, and nothing else; and it must commit all of that.
Excused are edits of a file that is replaced before the bridge has looked at it, and deletes that
it has undone because too much was gone at once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

from edgeproxy.cluster.bridge.bridge import Bridge
from edgeproxy.cluster.bridge.routing_file import MARKER_TABLE, RoutingFile
from edgeproxy.cluster.bridge.shadow import Shadow
from edgeproxy.cluster.builtin.engine import BuiltinEngine
from edgeproxy.cluster.engine import Changes, EngineError
from edgeproxy.core.cluster.rows import BACKENDS, TABLES, Edit, Key, Values
from edgeproxy.errors import StoreError
from edgeproxy.store.sqlite.database import create
from tests.sim.loop import sleep
from tests.sim.oracle import Fault
from tests.sim.store import Disk, Fuse, copied_file

COLUMNS = tuple(name for name in TABLES[BACKENDS].columns if name != "country")
"""The documented columns; a table of an older release has no other ones."""
IDS = ("n1", "n2", "n3", "n4", "n5")


class _Shadow(Shadow):
    """A shadow whose transactions fail when they are told to."""

    fuse: Fuse

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.fuse.reach("before")
        with super().transaction():
            yield
            self.fuse.reach("inside")
        self.fuse.reach("after")


class _Watched:
    """The engine, which looks at what the bridge commits."""

    def __init__(self, routing: Routing, engine: BuiltinEngine, disk: Disk) -> None:
        self._routing = routing
        self._engine = engine
        self._disk = disk

    def commit(self, edits: Sequence[Edit], token: str, after: str, at_ms: int) -> None:
        self._routing.check_edits(edits)
        try:
            self._engine.commit(edits, token, after, at_ms)
        finally:
            if self._disk.facts().token == token:
                self._routing.committed(edits)

    def last_token(self) -> str:
        return self._engine.last_token()

    def changes(self, after: str) -> Changes:
        return self._engine.changes(after)

    def is_ready(self) -> bool:
        return self._engine.is_ready()


class Routing:
    """One routing database, with its bridge.

    Attributes:
        is_due: Something has come for the bridge.
        edits_soon: Somebody edits between the bridge's look and its write.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        rng: Random,
        wall_ms: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self.path = folder / f"{name}.db"
        self.fuse = Fuse(lambda _: None)
        self.is_due = self.is_over = self.edits_soon = False
        self._name = name
        self._shadow_path = folder / f"{name}.shadow"
        self._copy = folder / f"{name}.copy"
        self._rng = rng
        self._wall_ms = wall_ms
        self._monotonic = monotonic
        self._edited: dict[Key, tuple[Values | None, Values | None]] = {}
        """What a row was before somebody edited it, and is now."""
        self._is_replaced = True
        self._number = 0
        self._shadow: _Shadow | None = None
        create(self.path)

    def begin(self, engine: BuiltinEngine, disk: Disk) -> None:
        """Start a bridge."""
        self.fuse.reset()
        self.is_over = False
        self._shadow = _Shadow(self._shadow_path)
        self._shadow.fuse = self.fuse
        watched = _Watched(self, engine, disk)
        self.bridge = Bridge(
            self.path, self._shadow, watched, lambda: self._wall_ms() / 1000, self._monotonic
        )
        self._file = self.bridge._file
        self._write = RoutingFile.write
        self._file.write = self._write_watched  # type: ignore[method-assign]

    def end(self) -> None:
        """The process has ended."""
        if self._shadow is not None:
            self._shadow.close()
            self._shadow = None

    async def run(self) -> None:
        """Make rounds for ever."""
        while not self.is_over:
            braked = self.bridge.braked_total
            try:
                is_done = self.bridge.round()
            except (EngineError, StoreError):
                is_done = False
            if self.bridge.braked_total > braked:
                for key in [key for key, (_, now) in self._edited.items() if now is None]:
                    del self._edited[key]
            # Before it has heard of others, what it has is not an edit yet.
            if is_done and not self.bridge._waits_for_others:
                self._is_replaced = False
            self.is_due = False
            await sleep(self._rng.uniform(0.05, 0.3))

    def _write_watched(self, rows: Any, marker: str, meant: Any = ()) -> Any:
        self.fuse.reach("before")
        if self.edits_soon:
            self.edits_soon = False
            self.edit(self._rng.choice(sorted(key.id for key in rows) or IDS))
        written = self._write(self._file, rows, marker, meant)
        self.fuse.reach("after")
        return written

    # -- what the bridge may commit --------------------------------------------------

    def check_edits(self, edits: Sequence[Edit]) -> None:
        for key, values in edits:
            if key not in self._edited:
                raise Fault(
                    f"the bridge of {self._name} commits what nobody edited: {key} {values}"
                )
            _, now = self._edited[key]
            is_same = (
                now == values if values is None or now is None else values.items() <= now.items()
            )
            if not is_same:
                raise Fault(f"the bridge of {self._name} commits {key} {values} instead of {now}")

    def committed(self, edits: Sequence[Edit]) -> None:
        for key, _ in edits:
            self._edited.pop(key, None)

    def check_rest(self, engine: BuiltinEngine) -> None:
        """Look when all have had time to tell each other everything."""
        if self._edited:
            raise Fault(f"at rest, {self._name}: edits were not committed: {self._edited}")
        there = engine._replica.rows()
        here = self.rows()
        if here != there:
            raise Fault(f"at rest, {self._name}: the routing database has {here}, not {there}")

    # -- people ----------------------------------------------------------------------

    def rows(self) -> dict[Key, Values]:
        with closing(sqlite3.connect(self.path)) as connection:
            names = ", ".join(("id", *COLUMNS))
            found = connection.execute(f"SELECT {names} FROM backends").fetchall()
        return {
            Key(BACKENDS, row[0]): {"country": None, **dict(zip(COLUMNS, row[1:], strict=True))}
            for row in found
        }

    def edit(self, row_id: str) -> str:
        """Insert, update or delete a row."""
        if self._is_replaced or not self.path.exists():
            return ""
        key = Key(BACKENDS, row_id)
        before = self.rows().get(key)
        self._number += 1
        unique = self._number * 1000 + int(self._name.split("-")[1])
        if before is None:
            values = ("myapp", "sa", "10.50.1.1", unique % 60_000, 1, 0, 1, unique, unique)
            names = ", ".join(COLUMNS)
            marks = ", ".join("?" * len(COLUMNS))
            self._run(f"INSERT INTO backends (id, {names}) VALUES (?, {marks})", row_id, *values)
            done = "inserts"
        elif self._rng.random() < 0.3:
            self._run("DELETE FROM backends WHERE id = ?", row_id)
            done = "deletes"
        else:
            column = self._rng.choice(("weight", "soft_limit"))
            self._run(f"UPDATE backends SET {column} = ? WHERE id = ?", unique, row_id)
            done = f"updates {column} of"
        now = self.rows().get(key)
        first = self._edited[key][0] if key in self._edited else before
        self._edited[key] = (first, now)
        if first == now:
            del self._edited[key]
        return f"{done} {row_id}"

    def _run(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(statement, values)
            connection.commit()
        secs = self._wall_ms() / 1000
        os.utime(self.path, (secs, secs))

    def delete_all(self) -> bool:
        """Empty the table by accident, if the bridge knows some of its rows."""
        if self._is_replaced or not self.path.exists() or self._edited or self._shadow is None:
            return False
        if self._shadow.count(BACKENDS) < 2:
            return False
        self._run("DELETE FROM backends")
        self._forget()
        return True

    def copy(self) -> None:
        """Keep a copy of the file."""
        if self.path.exists() and not self._is_replaced:
            self._copy.unlink(missing_ok=True)
            copied_file(self.path, self._copy)

    def put_back(self) -> bool:
        """Replace the file by the copy."""
        shadow = self._shadow
        if shadow is None or not self._copy.exists() or not self.path.exists():
            return False
        # With the marker of the last write it would be the same as somebody's edits.
        if _marker_of(self._copy) in ("", shadow.marker):
            return False
        self._copy.replace(self.path)
        self._forget()
        return True

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        self._edited.clear()
        self._is_replaced = True


def _marker_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        try:
            found = connection.execute(f"SELECT marker FROM {MARKER_TABLE}").fetchone()
        except sqlite3.OperationalError:
            return ""
    return "" if found is None else str(found[0])
