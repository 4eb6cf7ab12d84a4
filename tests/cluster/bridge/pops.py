"""POPs in one process: a routing database, a shadow and a bridge each, over engines in memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from edgeproxy.cluster.bridge.bridge import Bridge
from edgeproxy.cluster.bridge.shadow import Shadow
from edgeproxy.cluster.engine import Engine
from edgeproxy.store.sqlite.database import create
from tests.cluster.bridge.memory_engine import MemoryEngine

ROW = "('{id}', 'myapp', 'sa', '10.50.1.1', 8080, 1, {weight}, 50, 100, 0)"


class TestedEngine(Engine, Protocol):
    """An engine of tests that can be told to hear of another one, and hears all it has."""

    def hear(self, other: Any) -> None: ...


class Pop:
    """One POP. `now` is its time, in Unix and in monotonic seconds."""

    def __init__(
        self, folder: Path, name: str, *, ready: bool = True, engine: TestedEngine | None = None
    ) -> None:
        self.name = name
        self.now = 1_900_000_000.0
        self.path = folder / f"{name}.db"
        # Any other engine is for tests that know none in particular.
        self.engine: MemoryEngine = engine or MemoryEngine(name, ready=ready)  # type: ignore[assignment]
        create(self.path)
        self.start()

    def start(self) -> None:
        """Start a bridge, as after a death of the last."""
        self.shadow = Shadow(self.path.with_suffix(".shadow"))
        self.bridge = Bridge(self.path, self.shadow, self.engine, self._time, self._time)

    def _time(self) -> float:
        return self.now

    def die(self) -> None:
        """Lose the bridge, with all that it had in memory."""
        self.shadow.close()

    def round(self) -> bool:
        self.now += 0.1
        return self.bridge.round()

    def rounds(self) -> None:
        """Carry everything there is to carry."""
        for _ in range(10):
            self.now += 1
            if self.bridge.round() and not self.bridge._file.has_changed():
                return
        raise AssertionError("the bridge does not come to rest")

    def sql(self, *statements: str) -> None:
        """Edit the routing database, as any other program does."""
        with closing(sqlite3.connect(self.path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def add(self, *ids: str, weight: int = 1) -> None:
        self.sql(*(f"INSERT INTO backends VALUES {ROW.format(id=i, weight=weight)}" for i in ids))

    def table(self, query: str = "SELECT id, weight FROM backends") -> dict[str, object]:
        """Return the rows of a query of two columns."""
        with closing(sqlite3.connect(self.path)) as connection:
            return dict(connection.execute(query).fetchall())

    @property
    def ids(self) -> set[str]:
        return set(self.table())


def exchange(*pops: Pop) -> None:
    """Let all hear all, and settle."""
    for _ in range(2):
        for pop in pops:
            pop.rounds()
        for pop in pops:
            for other in pops:
                pop.engine.hear(other.engine)
    for pop in pops:
        pop.rounds()
