"""Editing the nodes of a routing database on a PostgreSQL server.

Each edit is one transaction. The trigger of the schema notifies running proxies. If the
connection breaks during a commit, the message says that the outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.store.edits import (
    LEASE_ENDED,
    MAX_GUESSES,
    Node,
    NodeEdits,
    RefusedError,
    UnknownNodeError,
    check_gone,
    check_types,
    check_usable,
    exists_already,
    nodes_of,
)
from edgeproxy.store.postgres.leases import ALONE, withheld_in
from edgeproxy.store.postgres.schema import columns_of, columns_to_read

if TYPE_CHECKING:
    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.store.postgres.connection import PostgresConnection
    from edgeproxy.store.postgres.link import Link
    from edgeproxy.store.postgres.url import PostgresUrl


class PostgresNodes(NodeEdits):
    """The nodes of one routing database on a server."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def path(self) -> PostgresUrl:
        """The URL; as text it has no password."""
        return self._link.url

    def read(self) -> list[Node]:
        """Return all nodes in the order of their ids, including deleted and faulty ones."""

        async def work(connection: PostgresConnection) -> tuple[list[Any], dict[object, int]]:
            names = columns_to_read(await columns_of(connection, self.path))
            rows = await connection.fetch(_select(names) + " ORDER BY id")
            return list(rows), await withheld_in(connection)

        rows, withheld = self._link.read(work)
        return nodes_of([dict(row) for row in rows], withheld)

    def add(self, backend: Backend) -> Node:
        """Insert a node (from `core.backends.rows.parse_node`) whose id is not in the table yet."""

        async def work(connection: PostgresConnection) -> Node:
            columns = await columns_of(connection, self.path)
            if backend.id in await withheld_in(connection):
                await connection.execute(ALONE)  # it may be about to register again
            await connection.execute(  # a table need not have a primary key
                "SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", backend.id
            )
            present = await self._find(connection, columns, backend.id)
            if present is not None and present.fault == LEASE_ENDED:
                await self._delete(connection, columns, backend.id)
            elif present is not None:
                raise exists_already(backend.id, soft_deleted=present.values["deleted"] == 1)
            values = values_of(backend, columns)
            with refusals():
                await connection.execute(insert(values), *values.values())
            node = await self._find(connection, columns, backend.id)
            check_usable(None if node is None else node.values)
            return await self._get(connection, columns, backend.id)

        return self._link.edit(work)

    def change(self, node_id: str, **values: object) -> Node:
        """Set these columns of a node, without checking the values."""

        async def work(connection: PostgresConnection) -> Node:
            columns = await columns_of(connection, self.path)
            await self._get(connection, columns, node_id)
            with refusals():
                await connection.execute(update(values, columns), node_id, *values.values())
            node = await self._get(connection, columns, node_id)
            check_types(values, node.values)
            return node

        return self._link.edit(work)

    def delete(self, node_id: str) -> Node:
        """Delete the row of a node; return the node as it was."""

        async def work(connection: PostgresConnection) -> Node:
            columns = await columns_of(connection, self.path)
            node = await self._get(connection, columns, node_id)
            await self._delete(connection, columns, node_id)
            return node

        return self._link.edit(work)

    def close(self) -> None:
        """Close the connections to the server."""
        self._link.close()

    async def _delete(self, connection: PostgresConnection, columns: list[str], name: str) -> None:
        with refusals():
            await connection.execute("DELETE FROM backends WHERE id = $1", name)
        check_gone(await self._find(connection, columns, name))

    async def _get(self, connection: PostgresConnection, columns: list[str], name: str) -> Node:
        node = await self._find(connection, columns, name)
        if node is None:
            some = await connection.fetch(f"SELECT id FROM backends LIMIT {MAX_GUESSES}")  # noqa: S608
            raise UnknownNodeError(name, [str(row[0]) for row in some], self.path)
        return node

    async def _find(
        self, connection: PostgresConnection, columns: list[str], name: str
    ) -> Node | None:
        if not is_text(name):  # so it equals no id
            return None
        query = _select(columns_to_read(columns)) + " WHERE id = $1 FOR UPDATE"
        with refusals():
            row = await connection.fetchrow(query, name)
        if row is None or row["id"] != name:  # the column may take 'Node' for 'node'
            return None
        return nodes_of([dict(row)], await withheld_in(connection))[0]


def values_of(backend: Backend, columns: list[str]) -> dict[str, object]:
    """Return the values of a backend for a table with these columns."""
    values = {name: getattr(backend, name) for name in COLUMNS}
    values = {name: int(value) if type(value) is bool else value for name, value in values.items()}
    if COUNTRY in columns:
        values[COUNTRY] = backend.country or ""  # NOT NULL, as documented
    return values


def insert(names: Mapping[str, object]) -> str:
    """Return the statement that inserts these columns."""
    places = ", ".join(f"${number}" for number in range(1, len(names) + 1))
    return f"INSERT INTO backends ({', '.join(names)}) VALUES ({places})"  # noqa: S608


def update(names: Mapping[str, object], columns: list[str]) -> str:
    """Return the statement that sets these columns of the row with the id $1."""
    pairs = [f"{name} = ${number}" for number, name in enumerate(names, start=2)]
    if "updated_at" in columns:
        pairs.append("updated_at = CURRENT_TIMESTAMP")
    return f"UPDATE backends SET {', '.join(pairs)} WHERE id = $1"  # noqa: S608


def _select(names: list[str]) -> str:
    return f"SELECT {', '.join(names)} FROM backends"  # noqa: S608


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a table has against a change of a row into RefusedError.

    It may be a view, have generated columns, constraints, rules or triggers.
    """
    import asyncpg

    try:
        yield
    except asyncpg.LockNotAvailableError:
        raise
    except (
        asyncpg.IntegrityConstraintViolationError,
        asyncpg.DataError,
        asyncpg.RaiseError,
        asyncpg.GeneratedAlwaysError,
        asyncpg.ObjectNotInPrerequisiteStateError,
        asyncpg.WrongObjectTypeError,
        asyncpg.FeatureNotSupportedError,
    ) as error:
        raise RefusedError(error) from None


def is_text(name: str) -> bool:
    """Return whether a server can hold this text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in name
