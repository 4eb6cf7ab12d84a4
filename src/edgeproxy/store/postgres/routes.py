"""Editing the server names of a routing database on a PostgreSQL server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.core.cluster.rows import ROUTES
from edgeproxy.store.edits import RouteEdits
from edgeproxy.store.postgres.schema import ROUTES_TABLE, has_routes, routes_of

if TYPE_CHECKING:
    from edgeproxy.store.postgres.connection import PostgresConnection
    from edgeproxy.store.postgres.link import Link

_SET = (
    f"INSERT INTO {ROUTES} (pattern, app) VALUES ($1, $2) "  # noqa: S608
    "ON CONFLICT (pattern) DO UPDATE SET app = excluded.app"
)
_REMOVE = f"DELETE FROM {ROUTES} WHERE pattern = $1"  # noqa: S608


class PostgresRoutes(RouteEdits):
    """The routes of one routing database on a server."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def read(self) -> list[tuple[str, str]]:
        """Return pairs of a server name and its app, by name."""
        return [(str(name), str(app)) for name, app in self._link.read(routes_of)]

    def close(self) -> None:
        """Close the connections to the server."""
        self._link.close()

    def _set(self, key: str, app: str) -> None:
        async def work(connection: PostgresConnection) -> None:
            if not await has_routes(connection):
                await connection.execute(ROUTES_TABLE)
            await connection.execute(_SET, key, app)

        self._link.edit(work)

    def _remove(self, key: str) -> bool:
        async def work(connection: PostgresConnection) -> bool:
            is_known = key in dict(await routes_of(connection))
            if is_known:
                await connection.execute(_REMOVE, key)
            return is_known

        return self._link.edit(work)
