"""The agent: a process beside the proxy that keeps its routing database equal to all others.

It is a process of its own so that neither its work nor its faults hold up a client: a proxy whose
agent is dead or wedged routes by the last good table. It ends when its standard input does, which
is when the proxy that started it is gone.

Only one agent may use a state: a second one waits for the lock, as it does during an upgrade.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeproxy.cluster.agent_socket import AgentError, serve, socket_path
from edgeproxy.cluster.bridge.bridge import Bridge
from edgeproxy.cluster.bridge.shadow import Shadow
from edgeproxy.cluster.bridge.worker import BridgeWorker
from edgeproxy.cluster.choice import make_engine
from edgeproxy.cluster.identity import begin_life
from edgeproxy.cluster.settings import ReplicationSettings
from edgeproxy.errors import StoreError
from edgeproxy.log import EventLog
from edgeproxy.store.sqlite.database import create, move_aside, transaction
from edgeproxy.store.sqlite.leases import adopt, end_all_of

log = EventLog("cluster")

LOCK_LOOK_SECS = 0.1
FILES_LOOK_SECS = 1.0


class Agent:
    """The agent of one POP. `run` does everything and returns the exit code."""

    def __init__(self, settings: ReplicationSettings, database: Path, region: str) -> None:
        self._settings = settings
        self._database = database
        self._region = region
        self._started_at = time.monotonic()
        self._node_id = ""

    def run(self) -> int:
        """Replicate until a signal, or the end of standard input. Raises EdgeProxyError."""
        with suppress(KeyboardInterrupt):
            asyncio.run(self._run())
        return 0

    async def _run(self) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        _watch_input(loop, stopping)
        lock = await _lock_of(self._settings.db_path, stopping)
        if lock is None:
            return
        try:
            await self._serve(stopping)
        finally:
            os.close(lock)

    async def _serve(self, stopping: asyncio.Event) -> None:
        settings = self._settings
        # What SQLite lays aside belongs to the disk of the state, not to one for small files.
        os.environ.setdefault("SQLITE_TMPDIR", str(settings.db_path.absolute().parent))
        self._node_id, life = begin_life(
            settings.db_path, settings.node_id, int(time.time() * 1000)
        )
        engine = make_engine(settings, self._node_id, life, self._region)
        self._engine = engine
        shadow = _shadow_of(settings.db_path)
        _prepare(self._database, self._node_id)
        self._bridge = Bridge(self._database, shadow, engine)
        self._worker = BridgeWorker(self._bridge)
        # What was edited while no agent ran is older than what comes from elsewhere now.
        await asyncio.to_thread(self._worker.start)
        server = None
        try:
            await engine.start(self._worker.wake)
            server = await serve(socket_path(settings.db_path), self._answer)
            log.info("replication", node=self._node_id, engine=settings.engine)
            await _until(stopping, _Files((settings.db_path, shadow.path)))
        finally:
            if server is not None:
                server.close()
                socket_path(settings.db_path).unlink(missing_ok=True)
            await asyncio.to_thread(self._worker.close)
            await engine.stop()
            shadow.close()

    async def _answer(self, name: str, arguments: Mapping[str, Any]) -> object:
        if name == "status":
            return self._status()
        done = await self._engine.command(name, arguments)
        if name == "forget":
            # Only that POP could end them, and it never comes back. The bridge tells the others.
            await asyncio.to_thread(self._end_leases_of, str(arguments["node"]))
        return done

    def _end_leases_of(self, home: str) -> None:
        with transaction(self._database) as connection:
            end_all_of(connection, home, int(time.time()))

    def _status(self) -> Mapping[str, object]:
        bridge = self._bridge
        return {
            "node_id": self._node_id,
            "cluster": self._settings.cluster_name,
            "engine": self._settings.engine,
            "pid": os.getpid(),
            "uptime_secs": round(time.monotonic() - self._started_at, 3),
            "ready": self._engine.is_ready(),
            "bridge": {
                "fault": self._worker.fault,
                "edits": bridge.edits_total,
                "rows": bridge.rows_total,
                "rows_braked": bridge.braked_total,
                "rows_refused": bridge.refused,
            },
            **self._engine.status(),
        }


class _Files:
    """The files of the agent: one that is deleted or replaced goes on to be used, for nothing."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._found: dict[Path, tuple[int, int] | None] = dict.fromkeys(paths)

    def lost(self) -> Path | None:
        """Return one that is not where it was, or another one; None while all are well."""
        for path, before in self._found.items():
            try:
                found = path.stat()
                now = (found.st_dev, found.st_ino)
            except OSError:
                now = None
            if before is not None and now != before:
                return path
            self._found[path] = now
        return None


async def _until(stopping: asyncio.Event, files: _Files) -> None:
    """Return when the agent is to end: a new one begins anew with what is there."""
    while not stopping.is_set():
        lost = files.lost()
        if lost is not None:
            log.error(
                "replication_file_lost", path=lost, hint="leave it alone while edgeproxy runs"
            )
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(FILES_LOOK_SECS):
                await stopping.wait()


def _watch_input(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """End when standard input does, unless it is a terminal or no pipe."""
    descriptor = sys.stdin.fileno() if sys.stdin is not None else -1

    def look() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stopping.set()

    if descriptor >= 0 and _is_pipe(descriptor):
        loop.add_reader(descriptor, look)


def _is_pipe(descriptor: int) -> bool:
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


async def _lock_of(db_path: Path, stopping: asyncio.Event) -> int | None:
    """Return the lock of a state, once no other agent has it; None if this is the end."""
    path = db_path.with_name(f"{db_path.name}-lock")
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AgentError(
            f"{path} cannot be made: {error.strerror}; the state of the cluster is kept beside it, "
            "see EDGEPROXY_REPLICATION_DB_PATH"
        ) from None
    has_told = False
    while not stopping.is_set():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not has_told:
                log.info("agent_waits", reason="another agent uses this state", path=db_path)
                has_told = True
            with suppress(TimeoutError):
                async with asyncio.timeout(LOCK_LOOK_SECS):
                    await stopping.wait()
        else:
            return descriptor
    os.close(descriptor)
    return None


def _prepare(database: Path, home: str) -> None:
    """Make the routing database if it is missing, and let its leases be those of this POP."""
    create(database)
    try:
        with transaction(database) as connection:
            adopt(connection, home)
    except StoreError as error:  # the bridge goes on trying to read it
        log.warning("replication_stalled", part="database", reason=str(error))


def _shadow_of(db_path: Path) -> Shadow:
    """Return the shadow; one that cannot be read is moved aside, and nothing is lost by that."""
    path = db_path.with_name(f"{db_path.name}-shadow")
    try:
        return Shadow(path)
    except StoreError as error:
        aside = move_aside(path)
        log.warning("shadow_damaged", path=path, moved_to=aside, reason=error.reason)
        return Shadow(path)


def run(settings: ReplicationSettings, database: Path, region: str) -> int:
    """Run an agent with the engine that the settings name. Raises EdgeProxyError."""
    return Agent(settings, database, region).run()
