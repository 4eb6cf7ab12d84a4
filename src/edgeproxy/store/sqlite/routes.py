"""Editing the server names of a routing database in an SQLite file: what `edgeproxy route` does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgeproxy.core.cluster.rows import ROUTES
from edgeproxy.store.edits import RouteEdits
from edgeproxy.store.sqlite.database import (
    EDIT_WAIT_SECS,
    ROUTES_TABLE,
    connect,
    naming_faults,
    read_routes,
    transaction,
)
from edgeproxy.store.sqlite.deletions import mark_deletion

_SET = f"INSERT OR REPLACE INTO {ROUTES} (pattern, app) VALUES (?, ?)"  # noqa: S608
_REMOVE = f"DELETE FROM {ROUTES} WHERE pattern = ?"  # noqa: S608


class Routes(RouteEdits):
    """The routes of one routing database in a file."""

    def __init__(self, path: Path, wait_secs: float = EDIT_WAIT_SECS) -> None:
        self.path = path
        self._wait_secs = wait_secs

    def read(self) -> list[tuple[str, str]]:
        """Return pairs of a server name and its app, by name."""
        with naming_faults(self.path), closing(connect(self.path, self._wait_secs)) as connection:
            return [(str(name), str(app)) for name, app in read_routes(connection, self.path)]

    def close(self) -> None:
        """Do nothing: the file is closed after each edit."""

    def _set(self, key: str, app: str) -> None:
        with transaction(self.path, self._wait_secs) as connection:
            connection.execute(ROUTES_TABLE)
            connection.execute(_SET, (key, app))

    def _remove(self, key: str) -> bool:
        with transaction(self.path, self._wait_secs) as connection:
            is_known = key in dict(read_routes(connection, self.path))
            if is_known:
                connection.execute(_REMOVE, (key,))
                mark_deletion(connection, ROUTES, key)
            return is_known
