"""The engine Corrosion: what the bridge and the operator want, said to a program of its own.

Edits go to its API and its rows are read from its file, both on the bridge's thread. The event loop
keeps the program running, asks it about the cluster every second, and tells the others who this POP
is. A thread of its own looks at the file every `LOOK_SECS` and wakes the bridge.

Corrosion acknowledges before its file is on the disk. So the file is flushed here before an edit
counts as committed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeproxy.cluster.corrosion import admin
from edgeproxy.cluster.corrosion.cluster_facts import read_facts
from edgeproxy.cluster.corrosion.configuration import (
    POPS,
    TLS_FILES,
    Place,
    cluster_id_of,
    configuration_text,
    folder_of,
    schema_text,
    sync_secs_of,
)
from edgeproxy.cluster.corrosion.link import Link, NoAnswerError
from edgeproxy.cluster.corrosion.members import Facts, Pop, has_synced, shown_members
from edgeproxy.cluster.corrosion.program import Program, free_port
from edgeproxy.cluster.corrosion.state_file import StateFile
from edgeproxy.cluster.corrosion.statements import commit_statements
from edgeproxy.cluster.engine import Changes, EngineError
from edgeproxy.cluster.settings import ReplicationSettings
from edgeproxy.core.cluster.rows import Edit
from edgeproxy.log import EventLog

log = EventLog("cluster")

LOOK_SECS = 0.02
SETTLED_LOOKS = 2
"""Looks at the cluster after something was fetched, until it is stored."""
MAX_SOCKET_BYTES = 107
_INTRODUCTION = (
    f"INSERT INTO {POPS} (actor_id, node_id, region) VALUES (?, ?, ?) "  # noqa: S608
    "ON CONFLICT (actor_id) DO UPDATE SET node_id = excluded.node_id, region = excluded.region"
)
_OBLIVION = f"DELETE FROM {POPS} WHERE node_id = ?"  # noqa: S608


class CorrosionEngine:
    """The engine of one POP; see `cluster.engine.RunningEngine`."""

    def __init__(
        self, settings: ReplicationSettings, node_id: str, _life: int, region: str
    ) -> None:
        """Find the program and open the state. Raises EngineError."""
        self._settings = settings
        self._pop = Pop(node_id, region)
        self._path = settings.db_path.absolute()
        self._folder = folder_of(self._path)
        program = _program_of(settings)
        _check_socket_path(Place(self._folder, 0, "").admin_socket)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise EngineError(f"{self._folder} cannot be made: {error.strerror}") from None
        self._state = StateFile(self._path, self._folder / "copy.db")
        self._program = Program(program, self._folder, self._prepare, self._look)
        self._link: Link | None = None
        self._link_place: Place | None = None
        self._facts = Facts("", 0, {}, {})
        with suppress(EngineError):
            self._facts = read_facts(self._path)
        self._has_met = not settings.bootstrap_peers or (
            bool(self._facts.pops.keys() - {self._facts.actor}) and not self._facts.missing
        )
        self._settled_looks = 0
        self._members: list[dict[str, Any]] = []
        self._fault = ""
        self._wake: Callable[[], object] = lambda: None
        self._over = threading.Event()
        self._watch: threading.Thread | None = None
        self._running: asyncio.Task[None] | None = None

    # -- for the bridge --------------------------------------------------------------

    def commit(self, edits: Sequence[Edit], token: str, after: str, at_ms: int) -> None:
        """See `cluster.engine.Engine`."""
        del at_ms  # Corrosion counts versions
        link = self._link_now()
        try:
            link.execute(commit_statements(edits, token, after))
        except NoAnswerError:
            if self._state.last_token() != token:
                raise
        self._flush()

    def last_token(self) -> str:
        """See `cluster.engine.Engine`."""
        return self._state.last_token()

    def changes(self, after: str) -> Changes:
        """See `cluster.engine.Engine`."""
        return self._state.changes(after)

    def is_ready(self) -> bool:
        """See `cluster.engine.Engine`."""
        return self._has_met

    def _link_now(self) -> Link:
        """Return the connection to the program that runs now. Raises EngineError."""
        place = self._program.place
        if place is None:
            raise EngineError(f"Corrosion does not run: {self._program.fault}")
        if self._link is None or place != self._link_place:
            if self._link is not None:
                self._link.close()
            self._link, self._link_place = Link(place.port, place.secret), place
        return self._link

    def _flush(self) -> None:
        """Flush what Corrosion has written to its log of writes. Closing that drops no lock."""
        try:
            log_of_writes = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # it was flushed into the file, and removed
            return
        except OSError as error:
            raise EngineError(f"{self._path}-wal cannot be flushed: {error.strerror}") from None
        try:
            os.fsync(log_of_writes)
        except OSError as error:
            raise EngineError(f"{self._path}-wal cannot be flushed: {error.strerror}") from None
        finally:
            os.close(log_of_writes)

    def _watch_file(self) -> None:
        """Wake the bridge whenever the file has changed."""
        connection: sqlite3.Connection | None = None
        seen = None
        while not self._over.wait(LOOK_SECS):
            try:
                if connection is None:
                    if not self._path.exists():
                        continue
                    connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
                version = connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error:
                if connection is not None:
                    connection.close()
                connection = version = None
            if version != seen:
                seen = version
                self._wake()
        if connection is not None:
            connection.close()

    # -- for the loop ----------------------------------------------------------------

    async def start(self, wake: Callable[[], object]) -> None:
        """See `cluster.engine.RunningEngine`."""
        self._wake = wake
        self._watch = threading.Thread(target=self._watch_file, name="corrosion_watch", daemon=True)
        self._watch.start()
        self._running = asyncio.ensure_future(self._program.run())

    async def stop(self) -> None:
        """See `cluster.engine.RunningEngine`."""
        self._over.set()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
            self._running = None
        if self._watch is not None:
            self._watch.join()
        if self._link is not None:
            self._link.close()
        self._state.close()

    def _prepare(self) -> Place:
        """Write what Corrosion reads at a start."""
        place = Place(self._folder, free_port(), secrets.token_hex(32))
        for path, text in (
            (place.schema, schema_text()),
            (place.configuration, configuration_text(self._settings, place)),
        ):
            new = path.with_name(f"{path.name}.new")
            new.unlink(missing_ok=True)
            with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(text)
            new.replace(path)
        return place

    async def _look(self) -> None:
        """See how the cluster is. Raises EngineError if the program does not answer."""
        place = self._program.place
        if place is None:
            return
        members = await admin.ask(place.admin_socket, admin.MEMBERS)
        states = await admin.ask(place.admin_socket, admin.MEMBERSHIP)
        try:
            rows_before = self._facts.rows
            self._facts = facts = await asyncio.to_thread(read_facts, self._path)
            self._members = shown_members(facts, members, states, time.time())
            await self._introduce(place, facts)
            self._fault = ""
        except (EngineError, ValueError) as error:
            self._fault = str(error)
            return
        if not self._has_met:
            self._judge(has_synced=has_synced(members, facts.actor), rows_before=rows_before)

    def _judge(self, *, has_synced: bool, rows_before: int) -> None:
        """Find out whether what others have is known here.

        Corrosion says so only if it had to fetch something. If it did not, this is taken for known
        once another POP was there for so long that they must have compared, and nothing comes.
        """
        is_there = any(member["is_connected"] for member in self._members)
        is_quiet = is_there and not self._facts.missing and self._facts.rows == rows_before
        self._settled_looks = self._settled_looks + 1 if is_quiet else 0
        compared_looks = 2 * sync_secs_of(self._settings) + SETTLED_LOOKS
        if self._settled_looks > (SETTLED_LOOKS if has_synced else compared_looks):
            self._has_met = True
            self._wake()

    async def _introduce(self, place: Place, facts: Facts) -> None:
        """Let the others know which cluster and POP this is. Raises EngineError."""
        cluster_id = cluster_id_of(self._settings.cluster_name)
        if facts.cluster_id != cluster_id:
            await admin.ask(place.admin_socket, admin.set_id(cluster_id))
        if facts.pops.get(facts.actor) != self._pop:
            await asyncio.to_thread(_execute, place, _INTRODUCTION, [facts.actor, *self._pop])

    # -- operators -------------------------------------------------------------------

    def status(self) -> Mapping[str, Any]:
        """See `cluster.engine.RunningEngine`."""
        return {
            "members": self._members,
            "warnings": self._warnings(),
            "counters": {
                "corrosion_starts": self._program.starts_total,
                "missing": sum(self._facts.missing.values()),
            },
        }

    def _warnings(self) -> list[str]:
        warnings = []
        if self._program.fault:
            warnings.append(f"Corrosion does not run: {self._program.fault}")
        if self._fault:
            warnings.append(self._fault)
        if self._settings.corrosion_tls_dir is None:
            warnings.append("there is no TLS: anybody who reaches this POP can change the table")
        up = [member["node_id"] for member in self._members if member["is_connected"]]
        twice = {name for name in up if [*up, self._pop.node_id].count(name) > 1}
        return warnings + [f"{name} is the name of more than one POP" for name in sorted(twice)]

    async def command(self, name: str, arguments: Mapping[str, Any]) -> object:
        """See `cluster.engine.RunningEngine`."""
        if name == "forget":
            return await self._forget(str(arguments["node"]))
        raise EngineError(REFUSED.get(name, f"Corrosion has no command {name}"))

    async def _forget(self, node_id: str) -> str:
        """Take the name off the list of those that no POP has any more."""
        known = {pop.node_id for pop in self._facts.pops.values()}
        if node_id not in known:
            raise EngineError(
                f"no POP {node_id} is known; known are: {', '.join(sorted(known)) or 'none'}"
            )
        up = {member["node_id"] for member in self._members if member["is_connected"]}
        place = self._program.place
        if node_id in {*up, self._pop.node_id}:
            raise EngineError(f"{node_id} is up")
        if place is None:
            raise EngineError(f"Corrosion does not run: {self._program.fault}")
        await asyncio.to_thread(_execute, place, _OBLIVION, [node_id])
        return f"{node_id} is forgotten; Corrosion drops its address two days after it was lost"


REFUSED = {
    "join": "Corrosion joins when it starts: name the POP in EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS "
    "and restart edgeproxy",
    "leave": "Corrosion leaves when it ends: stop edgeproxy",
    "diff": "Corrosion compares with others by itself; what it knows to be missing here is in "
    "`edgeproxy cluster members`",
    "rotate_key": "Corrosion has certificates and no keys: put new ones into "
    "EDGEPROXY_CORROSION_TLS_DIR and restart edgeproxy",
}


def _execute(place: Place, text: str, parameters: list[str]) -> None:
    link = Link(place.port, place.secret)
    try:
        link.execute([(text, [*parameters])])
    finally:
        link.close()


def _program_of(settings: ReplicationSettings) -> str:
    """Return the path of the program. Raises EngineError."""
    found = shutil.which(settings.corrosion_bin)
    if found is None:
        raise EngineError(
            f"EDGEPROXY_CORROSION_BIN={str(settings.corrosion_bin)!r}: there is no such program. "
            "Corrosion is not part of edgeproxy: build it from github.com/superfly/corrosion and "
            "name it there, or use EDGEPROXY_REPLICATION_ENGINE=builtin"
        )
    tls = settings.corrosion_tls_dir
    missing = [] if tls is None else [name for name in TLS_FILES if not (tls / name).is_file()]
    if missing:
        raise EngineError(f"EDGEPROXY_CORROSION_TLS_DIR={str(tls)!r} lacks {', '.join(missing)}")
    return found


def _check_socket_path(path: Path) -> None:
    if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        raise EngineError(
            f"{path}: a Unix socket cannot have so long a path: set EDGEPROXY_REPLICATION_DB_PATH "
            "to a shorter one"
        )
