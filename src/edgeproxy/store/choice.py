"""Chooses the routing database: an SQLite file, or one on a PostgreSQL server.

The kind that is not chosen is not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from socket import gethostname
from typing import TYPE_CHECKING

from edgeproxy.core.pacing import Pause, no_pause
from edgeproxy.errors import ConfigError
from edgeproxy.store.sqlite.database import EDIT_WAIT_SECS
from edgeproxy.store.sqlite.store import DatabaseSettings, SqliteStore

if TYPE_CHECKING:
    from edgeproxy.store.edits import NodeEdits, RegisteredRows
    from edgeproxy.store.feed import Store
    from edgeproxy.store.postgres.url import PostgresSettings


def make_store(
    database: DatabaseSettings,
    postgres: PostgresSettings,
    rest: Pause = no_pause,
    wake: Callable[[], object] | None = None,
    *,
    makes: bool = True,
) -> Store:
    """Return the store that these settings name, without opening it.

    A database that notifies of changes calls `wake`, on another thread. Without `makes`, reading
    creates no table on a server. Raises ConfigError if the driver is not installed.
    """
    if not postgres.enabled:
        return SqliteStore(database.path, rest, wake)
    check_driver()
    from edgeproxy.store.postgres.store import PostgresStore

    return PostgresStore(postgres, rest, wake, makes=makes)


def nodes_in(store: Store, wait_secs: float = EDIT_WAIT_SECS) -> NodeEdits:
    """Return the node edits of this store, over the same connections.

    `wait_secs` is how long to wait for another program that writes the file.
    """
    if isinstance(store, SqliteStore):
        from edgeproxy.store.sqlite.nodes import Nodes

        return Nodes(store.path, wait_secs)
    from edgeproxy.store.postgres.nodes import PostgresNodes
    from edgeproxy.store.postgres.store import PostgresStore

    assert isinstance(store, PostgresStore)
    return PostgresNodes(store.link)


def registrations_in(
    store: Store, home: str | None, listen: object, wait_secs: float = EDIT_WAIT_SECS
) -> RegisteredRows:
    """Return the registered backends of this store, over the same connections.

    `home` is the name of this POP there. Without it, all proxies on one file are one POP; on a
    server, the name is this host and the address of the API.
    """
    if isinstance(store, SqliteStore):
        from edgeproxy.store.sqlite.registrations import Registrations

        return Registrations(store.path, wait_secs, home or "")
    from edgeproxy.store.postgres.registrations import PostgresRegistrations
    from edgeproxy.store.postgres.store import PostgresStore

    assert isinstance(store, PostgresStore)
    return PostgresRegistrations(store.link, home or f"{gethostname()} {listen}")


def check_driver() -> None:
    """Raise ConfigError unless the driver for PostgreSQL is installed."""
    if find_spec("asyncpg") is None:
        raise ConfigError(
            "EDGEPROXY_POSTGRES_ENABLED needs the package asyncpg: "
            "pip install asyncpg, or '.[postgres]' in a checkout"
        )
