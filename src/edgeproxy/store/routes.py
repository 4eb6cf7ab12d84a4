"""Editing the table of server names: what `edgeproxy route` does.

The table is made with its first route. Running proxies need not be told: they follow the file.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgeproxy.core.server_names import pattern
from edgeproxy.errors import StoreError, UsageError
from edgeproxy.store.database import (
    EDIT_WAIT_SECS,
    ROUTES,
    connect,
    naming_faults,
    read_routes,
    transaction,
)

_TABLE = f"CREATE TABLE IF NOT EXISTS {ROUTES} (pattern TEXT PRIMARY KEY, app TEXT NOT NULL)"
_SET = f"INSERT OR REPLACE INTO {ROUTES} (pattern, app) VALUES (?, ?)"  # noqa: S608
_REMOVE = f"DELETE FROM {ROUTES} WHERE pattern = ?"  # noqa: S608


class Routes:
    """The routes of one routing database.

    Every method raises `StoreError` when the database is not as it must be, and `UsageError` for
    what is not allowed.
    """

    def __init__(self, path: Path, wait_secs: float = EDIT_WAIT_SECS) -> None:
        self.path = path
        self._wait_secs = wait_secs

    def read(self) -> list[tuple[str, str]]:
        """Return pairs of a server name and its app, by name."""
        with naming_faults(self.path), closing(connect(self.path, self._wait_secs)) as connection:
            return [(str(name), str(app)) for name, app in read_routes(connection)]

    def set(self, name: str, app: str) -> str:
        """Lead the clients of a server name to an app; return the name in its normal form."""
        key = _normal(name)
        if not app or not app.isprintable() or len(app) > 128:
            raise UsageError(f"app {app!r}: allowed is printable text of 1 to 128 characters")
        with transaction(self.path, self._wait_secs) as connection:
            connection.execute(_TABLE)
            connection.execute(_SET, (key, app))
        return key

    def remove(self, name: str) -> str:
        """Take a server name out; return it in its normal form. StoreError if it is not there."""
        key = _normal(name)
        with transaction(self.path, self._wait_secs) as connection:
            there = {found for found, _ in read_routes(connection)}
            if key not in there:
                raise StoreError(f"there is no route of {key}; see `edgeproxy route list`")
            connection.execute(_REMOVE, (key,))
        return key


def _normal(name: str) -> str:
    try:
        return pattern(name)
    except ValueError as error:
        raise UsageError(f"{name!r}: {error}") from None
