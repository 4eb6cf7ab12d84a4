"""Editing the server names of a routing database on a PostgreSQL server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.store.edits import check_app, normal_name, unknown_route
from edgeproxy.store.postgres.schema import ROUTES_TABLE, has_routes, routes_of
from edgeproxy.store.snapshot import ROUTES

if TYPE_CHECKING:
    from edgeproxy.store.postgres.connection import PostgresConnection
    from edgeproxy.store.postgres.link import Link

_SET = (
    f"INSERT INTO {ROUTES} (pattern, app) VALUES ($1, $2) "  # noqa: S608
    "ON CONFLICT (pattern) DO UPDATE SET app = excluded.app"
)
_REMOVE = f"DELETE FROM {ROUTES} WHERE pattern = $1"  # noqa: S608


class PostgresRoutes:
    """The routes of one routing database on a server.

    Every method raises `StoreError` when the database is not as it must be, and `UsageError` for
    a value that is not allowed.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def read(self) -> list[tuple[str, str]]:
        """Return pairs of a server name and its app, by name."""
        return [(str(name), str(app)) for name, app in self._link.read(routes_of)]

    def set(self, name: str, app: str) -> str:
        """Send the clients of a server name to an app; return the name in its normal form."""
        key = normal_name(name)
        check_app(app)

        async def work(connection: PostgresConnection) -> None:
            if not await has_routes(connection):
                await connection.execute(ROUTES_TABLE)
            await connection.execute(_SET, key, app)

        self._link.edit(work)
        return key

    def remove(self, name: str) -> str:
        """Delete the route of a server name; return the name in its normal form."""
        key = normal_name(name)

        async def work(connection: PostgresConnection) -> None:
            if key not in {found for found, _ in await routes_of(connection)}:
                raise unknown_route(key)
            await connection.execute(_REMOVE, key)

        self._link.edit(work)
        return key

    def close(self) -> None:
        """Close the connections to the server."""
        self._link.close()
