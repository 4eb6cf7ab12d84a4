"""Editing the server names of a routing database in an SQLite file: what `edgeproxy route` does.

The first route makes the table. Running proxies notice the edit on their own.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgeproxy.store.edits import check_app, normal_name, unknown_route
from edgeproxy.store.snapshot import ROUTES
from edgeproxy.store.sqlite.database import (
    EDIT_WAIT_SECS,
    connect,
    naming_faults,
    read_routes,
    transaction,
)

_TABLE = f"CREATE TABLE IF NOT EXISTS {ROUTES} (pattern TEXT PRIMARY KEY, app TEXT NOT NULL)"
_SET = f"INSERT OR REPLACE INTO {ROUTES} (pattern, app) VALUES (?, ?)"  # noqa: S608
_REMOVE = f"DELETE FROM {ROUTES} WHERE pattern = ?"  # noqa: S608


class Routes:
    """The routes of one routing database in a file.

    Every method raises `StoreError` when the database is not as it must be, and `UsageError` for
    a value that is not allowed.
    """

    def __init__(self, path: Path, wait_secs: float = EDIT_WAIT_SECS) -> None:
        self.path = path
        self._wait_secs = wait_secs

    def read(self) -> list[tuple[str, str]]:
        """Return pairs of a server name and its app, by name."""
        with naming_faults(self.path), closing(connect(self.path, self._wait_secs)) as connection:
            return [(str(name), str(app)) for name, app in read_routes(connection)]

    def set(self, name: str, app: str) -> str:
        """Send the clients of a server name to an app; return the name in its normal form."""
        key = normal_name(name)
        check_app(app)
        with transaction(self.path, self._wait_secs) as connection:
            connection.execute(_TABLE)
            connection.execute(_SET, (key, app))
        return key

    def remove(self, name: str) -> str:
        """Delete the route of a server name; return the name in its normal form."""
        key = normal_name(name)
        with transaction(self.path, self._wait_secs) as connection:
            names = {found for found, _ in read_routes(connection)}
            if key not in names:
                raise unknown_route(key)
            connection.execute(_REMOVE, (key,))
        return key

    def close(self) -> None:
        """Do nothing: the file is closed after each edit."""
