"""Editing the table of server names: what `edgeproxy route` does.

The table is made with its first route. Running proxies need not be told: they follow the file.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgeproxy.core.routing.server_names import pattern
from edgeproxy.errors import StoreError, UsageError
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
        key = normal(name)
        checked(app)
        with transaction(self.path, self._wait_secs) as connection:
            connection.execute(_TABLE)
            connection.execute(_SET, (key, app))
        return key

    def remove(self, name: str) -> str:
        """Take a server name out; return it in its normal form. StoreError if it is not there."""
        key = normal(name)
        with transaction(self.path, self._wait_secs) as connection:
            there = {found for found, _ in read_routes(connection)}
            if key not in there:
                raise no_route(key)
            connection.execute(_REMOVE, (key,))
        return key

    def close(self) -> None:
        """Do nothing: between edits no file is open."""


def checked(app: str) -> None:
    """Raise UsageError for what cannot be the name of an app."""
    if not app or not app.isprintable() or len(app) > 128:
        raise UsageError(f"app {app!r}: allowed is printable text of 1 to 128 characters")


def no_route(key: str) -> StoreError:
    """Return the error that there is no such route."""
    return StoreError(f"there is no route of {key}; see `edgeproxy route list`")


def normal(name: str) -> str:
    """Return a server name in its normal form, or raise UsageError."""
    try:
        return pattern(name)
    except ValueError as error:
        raise UsageError(f"{name!r}: {error}") from None
