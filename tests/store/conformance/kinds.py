"""The kinds of routing databases, as other programs touch them, for the same tests over all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from edgeproxy.core.backends.rows import COLUMNS
from edgeproxy.store.choice import nodes_in, registrations_in
from edgeproxy.store.edits import NodeEdits, RegisteredRows, RouteEdits
from edgeproxy.store.feed import Store
from edgeproxy.store.postgres.routes import PostgresRoutes
from edgeproxy.store.postgres.store import PostgresStore
from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl
from edgeproxy.store.sqlite.routes import Routes
from edgeproxy.store.sqlite.store import SqliteStore
from tests.store.editing import execute
from tests.store.server import Database

ROW = {
    "app": "myapp",
    "region": "sa",
    "wg_ip": "10.50.1.1",
    "port": 8080,
    "healthy": 1,
    "weight": 2,
    "soft_limit": 50,
    "hard_limit": 100,
    "deleted": 0,
}


class Kind(Protocol):
    """A routing database and how to get at it past the store."""

    has_country: bool
    """Whether it has a country in its documented table."""

    def store(self) -> Store:
        """Return a new store of it."""

    def nodes(self) -> NodeEdits:
        """Return what edits it."""

    def routes(self) -> RouteEdits:
        """Return what edits its server names."""

    def registrations(self, home: str = "here") -> RegisteredRows:
        """Return its registered backends, as one POP asks for them."""

    def execute(self, sql: str) -> None:
        """Run SQL as another program does."""

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the documented columns of all rows, by id."""

    def insert(self, node_id: str, **columns: object) -> None:
        """Insert a row as another program does; what is not given is as in `ROW`."""

    def close(self) -> None:
        """Let go of all stores."""


class _Stores:
    has_country = False

    def __init__(self) -> None:
        self._opened: list[Store] = []

    def _new(self) -> Store:
        raise NotImplementedError

    def execute(self, sql: str) -> None:
        raise NotImplementedError

    def store(self) -> Store:
        self._opened.append(self._new())
        return self._opened[-1]

    def nodes(self) -> NodeEdits:
        return nodes_in(self.store())

    def registrations(self, home: str = "here") -> RegisteredRows:
        return registrations_in(self.store(), home, "", 0.1)

    def insert(self, node_id: str, **columns: object) -> None:
        values = {"id": node_id, **ROW, **columns}
        if self.has_country:
            values.setdefault("country", "")
        texts = ", ".join("'" + str(each).replace("'", "''") + "'" for each in values.values())
        self.execute(f"INSERT INTO backends ({', '.join(values)}) VALUES ({texts});")

    def close(self) -> None:
        for each in self._opened:
            each.close()


class SqliteKind(_Stores):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def _new(self) -> Store:
        return SqliteStore(self.path)

    def routes(self) -> RouteEdits:
        return Routes(self.path)

    def execute(self, sql: str) -> None:
        execute(self.path, sql)

    def rows(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            query = f"SELECT {', '.join(COLUMNS)} FROM backends ORDER BY id"
            return connection.execute(query).fetchall()


class PostgresKind(_Stores):
    has_country = True

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.settings = PostgresSettings(enabled=True, url=PostgresUrl(database.url))

    def _new(self) -> PostgresStore:
        return PostgresStore(self.settings)

    def routes(self) -> RouteEdits:
        store = self._new()
        self._opened.append(store)
        return PostgresRoutes(store.link)

    def execute(self, sql: str) -> None:
        self.database.execute(sql)

    def rows(self) -> list[tuple[Any, ...]]:
        found = self.database.execute(f"SELECT {', '.join(COLUMNS)} FROM backends ORDER BY id")
        return [tuple(int(x) if n > 3 else x for n, x in enumerate(row)) for row in found]
