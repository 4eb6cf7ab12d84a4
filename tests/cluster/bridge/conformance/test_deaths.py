"""A bridge that is killed at random instants loses no edit, takes none twice, and deletes nothing.

Each POP has a bridge process that is killed with SIGKILL again and again. Meanwhile one program at
each POP edits rows of its own with rising values, and one row is edited at any POP by whoever sees
its last value. So the last value of each row is known, and each value may be committed only once.

    python -m tests.cluster.bridge.conformance.test_deaths --kills 500
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Protocol

from edgeproxy.cluster.bridge.bridge import Bridge
from edgeproxy.cluster.bridge.shadow import Shadow
from edgeproxy.cluster.engine import Engine, EngineError
from edgeproxy.core.cluster.rows import Edit
from edgeproxy.errors import StoreError
from edgeproxy.store.sqlite.database import create
from tests.cluster.bridge.memory_engine import MemoryEngine
from tests.cluster.bridge.pops import ROW
from tests.waiting import PAUSE, wait_until

NODES = ("sa", "us", "eu")
ROWS_EACH = 12
SHARED = "shared"
LONGEST_LIFE_SECS = 0.08


class Engines:
    """The engines of all POPs; they hear of each other all the time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines = {node: MemoryEngine(node) for node in NODES}
        threading.Thread(target=self._exchange, daemon=True).start()

    def _exchange(self) -> None:
        while True:
            PAUSE.wait(0.01)
            with self._lock:
                for one in self._engines.values():
                    for other in self._engines.values():
                        one.hear(other)

    def call(self, node: str, method: str, *arguments: object) -> object:
        with self._lock:
            return getattr(self._engines[node], method)(*arguments)

    def committed(self) -> list[tuple[str, str, object]]:
        """Return the POP, the row and the weight of each edit of a weight, in order."""
        with self._lock:
            return weights({node: engine.commits for node, engine in self._engines.items()})

    def stop(self) -> None:
        """End, before the process does."""


class AnyEngines(Protocol):
    """The engines of all POPs, which hear of each other by themselves."""

    def call(self, node: str, method: str, *arguments: object) -> object: ...

    def committed(self) -> list[tuple[str, str, object]]: ...

    def stop(self) -> None: ...


def weights(commits: Mapping[str, Sequence[Sequence[Edit]]]) -> list[tuple[str, str, object]]:
    """Return the POP, the row and the weight of each edit of a weight."""
    return [
        (node, key.id, None if values is None else values.get("weight"))
        for node, all_edits in commits.items()
        for edits in all_edits
        for key, values in edits
        if values is None or "weight" in values
    ]


class EnginesProcess(BaseManager):
    """The process of the engines."""


EnginesProcess.register("Engines", Engines)


class RemoteEngine:
    """An engine in another process."""

    def __init__(self, engines: object, node: str) -> None:
        self._engines = engines
        self._node = node

    def __getattr__(self, method: str) -> object:
        return lambda *arguments: self._engines.call(self._node, method, *arguments)  # type: ignore[attr-defined]


def live(path: Path, engine: Engine) -> None:
    """Be a bridge until the end."""
    bridge = Bridge(path, Shadow(path.with_suffix(".shadow")), engine)
    while True:
        with suppress(StoreError, EngineError):
            bridge.round()
        PAUSE.wait(0.002)


def fork_bridge(path: Path, address: str, node: str) -> int:
    """Start a bridge in a process of its own; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        process = EnginesProcess(address=address, authkey=b"test")
        process.connect()
        live(path, RemoteEngine(process.Engines_(), node))  # type: ignore[attr-defined, arg-type]
    finally:
        os._exit(1)


EnginesProcess.register("Engines_", lambda: SHARED_ENGINES[0])
SHARED_ENGINES: list[AnyEngines] = []


def serve(folder: Path, make_engines: Callable[[], AnyEngines]) -> tuple[int, str]:
    """Start the engines in a process of their own; return its pid and address."""
    address = str(folder / "engines")
    pid = os.fork()
    if pid:
        return pid, address
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        SHARED_ENGINES.append(make_engines())
        EnginesProcess(address=address, authkey=b"test").get_server().serve_forever()
    finally:
        for engines in SHARED_ENGINES:
            engines.stop()
        os._exit(0)


class Editors:
    """Programs that edit the databases, and what they have written."""

    def __init__(self, paths: dict[str, Path], rng: random.Random) -> None:
        self._paths = paths
        self._rng = rng
        self.last: dict[str, int | None] = {}
        self.edits = 0

    def fill(self) -> None:
        for node, path in self._paths.items():
            names = [f"{node}-{number}" for number in range(ROWS_EACH)]
            if node == NODES[0]:
                names.append(SHARED)
            with closing(sqlite3.connect(path, timeout=10)) as connection:
                for name in names:
                    insert = f"INSERT INTO backends VALUES {ROW.format(id=name, weight=1)}"
                    connection.execute(insert)
                connection.commit()
            self.last |= dict.fromkeys(names, 1)

    def edit(self) -> None:
        """Edit one row."""
        self.edits += 1
        node = self._rng.choice(NODES)
        with closing(sqlite3.connect(self._paths[node], timeout=10)) as connection:
            if self._rng.random() < 0.2:
                self._edit_shared(connection)
            else:
                self._edit_own(connection, f"{node}-{self._rng.randrange(ROWS_EACH)}")

    def _edit_own(self, connection: sqlite3.Connection, name: str) -> None:
        value = self.last[name]
        if value is None:
            value = self.edits + 1
            connection.execute(f"INSERT INTO backends VALUES {ROW.format(id=name, weight=value)}")
        elif self._rng.random() < 0.1:
            value = None
            connection.execute("DELETE FROM backends WHERE id = ?", (name,))
        else:
            value = self.edits + 1
            connection.execute("UPDATE backends SET weight = ? WHERE id = ?", (value, name))
        connection.commit()
        self.last[name] = value

    def _edit_shared(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        query = "SELECT weight FROM backends WHERE id = ?"
        seen = connection.execute(query, (SHARED,)).fetchone()
        if seen == (self.last[SHARED],):
            value = self.edits + 1
            update = "UPDATE backends SET weight = ? WHERE id = ?"
            connection.execute(update, (value, SHARED))
            connection.commit()
            self.last[SHARED] = value

    def expected(self) -> dict[str, int]:
        return {name: value for name, value in self.last.items() if value is not None}


def table(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        return dict(connection.execute("SELECT id, weight FROM backends").fetchall())


def storm(
    folder: Path,
    kills: int,
    seed: int,
    make_engines: Callable[[], AnyEngines] = Engines,
    deadline_secs: float = 20.0,
) -> str:
    """Kill bridges so many times; return what happened. Fails if anything was lost or repeated."""
    rng = random.Random(seed)
    paths = {node: folder / f"{node}.db" for node in NODES}
    for path in paths.values():
        create(path)
    engines_pid, address = serve(folder, make_engines)
    wait_until(lambda: Path(address).exists(), "the engines", 120)
    pids = {node: fork_bridge(path, address, node) for node, path in paths.items()}
    editors = Editors(paths, rng)
    try:
        editors.fill()
        wait_until(
            lambda: all(table(path) == editors.expected() for path in paths.values()),
            "all rows everywhere",
            deadline_secs,
        )
        killed_at: dict[str, float] = dict.fromkeys(NODES, time.monotonic())
        done = 0
        while done < kills:
            editors.edit()
            for node in NODES:
                if time.monotonic() - killed_at[node] > rng.random() * LONGEST_LIFE_SECS:
                    os.kill(pids[node], signal.SIGKILL)
                    os.waitpid(pids[node], 0)
                    pids[node] = fork_bridge(paths[node], address, node)
                    killed_at[node] = time.monotonic()
                    done += 1
        wait_until(
            lambda: all(table(path) == editors.expected() for path in paths.values()),
            f"equal tables (seed {seed})",
            deadline_secs,
        )
        process = EnginesProcess(address=address, authkey=b"test")
        process.connect()
        check_commits(process.Engines_().committed())  # type: ignore[attr-defined]
    finally:
        for pid in (*pids.values(), engines_pid):
            os.kill(pid, signal.SIGTERM if pid == engines_pid else signal.SIGKILL)
            os.waitpid(pid, 0)
    return f"{done} bridges killed, {editors.edits} edits, seed {seed}: none lost, none repeated"


def check_commits(commits: list[tuple[str, str, object]]) -> None:
    """Fail if an edit was committed by a POP where nobody made it, or twice."""
    by_row: dict[str, list[object]] = defaultdict(list)
    for node, name, value in commits:
        if name != SHARED:
            assert name.startswith(node), f"{node} has committed {name} = {value}"
        by_row[name].append(value)
    for name, values in by_row.items():
        numbers = [value for value in values if value is not None]
        assert len(numbers) == len(set(numbers)), f"{name} was committed twice: {values}"
        if name != SHARED:
            assert numbers == sorted(numbers), f"{name} went back: {values}"  # type: ignore[type-var]


def test_bridges_that_are_killed_lose_and_repeat_nothing(tmp_path: Path) -> None:
    storm(tmp_path, kills=60, seed=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(storm(Path(folder), options.kills, options.seed) + "\n")


if __name__ == "__main__":
    main()
