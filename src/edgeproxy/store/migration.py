"""Copies the nodes and server names of one routing database to another, in one transaction.

Rows that only the target has stay. A node that differs in the target is replaced only with
`overwrite`; a faulty node of the source is left out only with `skip_faulty`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.core.backends.rows import COLUMNS, COUNTRY, parse_row, shown
from edgeproxy.core.cluster.rows import ROUTES
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import Node, nodes_of
from edgeproxy.store.sqlite.database import (
    EDIT_WAIT_SECS,
    ROUTES_TABLE,
    connect,
    create,
    naming_faults,
    read_columns,
    read_routes,
    read_rows,
    transaction,
)
from edgeproxy.store.sqlite.leases import read_withheld
from edgeproxy.store.sqlite.nodes import insert, update

if TYPE_CHECKING:
    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.store.postgres.connection import PostgresConnection
    from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl

NAMED_AT_MOST = 5

Routes = dict[str, str]


@dataclass(frozen=True, slots=True)
class Cargo:
    """The content of a routing database, as it is."""

    nodes: list[Node] = field(default_factory=list)
    routes: Routes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """The nodes and server names that a migration writes."""

    added: list[Backend]
    replaced: list[Backend]
    routes: Routes


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a migration, in numbers of nodes and of server names."""

    added: int
    replaced: int
    unchanged: int
    routes: int
    faulty: int
    countries_lost: int


def migrate(source: End, target: End, *, overwrite: bool, skip_faulty: bool) -> Done:
    """Copy everything. If it raises StoreError, nothing has changed."""
    cargo = source.read()
    faulty = [node for node in cargo.nodes if node.fault]
    if faulty and not skip_faulty:
        raise StoreError(
            f"{source.path} has {len(faulty)} faulty nodes ({_named(faulty)}): correct or delete "
            "them, or leave them behind with --skip-faulty"
        )
    backends = [parse_row(node.values) for node in cargo.nodes if not node.fault]
    unchanged = 0

    def decide(present: Cargo) -> Change:
        nonlocal unchanged
        present_nodes = {str(node.values["id"]): node for node in present.nodes}
        added = [backend for backend in backends if backend.id not in present_nodes]
        differing = [
            backend
            for backend in backends
            if backend.id in present_nodes and not _is_same(backend, present_nodes[backend.id])
        ]
        unchanged = len(backends) - len(added) - len(differing)
        routes = {p: a for p, a in cargo.routes.items() if present.routes.get(p) != a}
        names = [p for p in routes if p in present.routes]
        if (differing or names) and not overwrite:
            what = ", ".join(
                [shown(backend.id) for backend in differing[:NAMED_AT_MOST]] + names[:3]
            )
            raise StoreError(
                f"{target.path} has {len(differing)} of these nodes and {len(names)} of these "
                f"server names with other values ({what}): nothing was changed; --overwrite "
                "replaces them"
            )
        return Change(added, differing, routes)

    change, has_country = target.write(decide)
    written = [*change.added, *change.replaced]
    lost = 0 if has_country else sum(backend.country is not None for backend in written)
    return Done(
        len(change.added), len(change.replaced), unchanged, len(change.routes), len(faulty), lost
    )


def _named(nodes: list[Node]) -> str:
    some = ", ".join(shown(node.values["id"]) for node in nodes[:NAMED_AT_MOST])
    return some if len(nodes) <= NAMED_AT_MOST else f"{some} and more"


def _is_same(backend: Backend, node: Node) -> bool:
    if node.fault:
        return False
    stored = parse_row(node.values)
    if COUNTRY not in node.values:  # the table has no such column
        return all(getattr(backend, name) == getattr(stored, name) for name in COLUMNS)
    return backend == stored


def _routes(pairs: Iterable[tuple[object, object]]) -> Routes:
    return {str(pattern): str(app) for pattern, app in pairs}


class SqliteEnd:
    """A routing database in an SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Cargo:
        """Return the whole content but withheld backends. Raises StoreError."""
        with naming_faults(self.path), closing(connect(self.path, EDIT_WAIT_SECS)) as connection:
            connection.execute("BEGIN")
            withheld = read_withheld(connection, self.path)
            rows = [row for row in read_rows(connection, self.path) if row["id"] not in withheld]
            return Cargo(nodes_of(rows), _routes(read_routes(connection, self.path)))

    def write(self, decide: Callable[[Cargo], Change]) -> tuple[Change, bool]:
        """Write the change that `decide` chooses by the content of the file, in one transaction.

        A missing file is created. Return the change, and whether the table has countries.
        """
        create(self.path)
        with transaction(self.path) as connection:
            rows = read_rows(connection, self.path)
            change = decide(Cargo(nodes_of(rows), _routes(read_routes(connection, self.path))))
            has_country = COUNTRY in read_columns(connection, self.path)
            names = (*COLUMNS, COUNTRY) if has_country else COLUMNS
            added, replaced = (
                [{name: getattr(backend, name) for name in names} for backend in backends]
                for backends in (change.added, change.replaced)
            )
            connection.executemany(insert(names), added)
            connection.executemany(update(names[1:]), replaced)
            if change.routes:
                connection.execute(ROUTES_TABLE)
                connection.executemany(
                    f"DELETE FROM {ROUTES} WHERE pattern = ?",  # noqa: S608
                    [(pattern,) for pattern in change.routes],
                )
                connection.executemany(
                    f"INSERT INTO {ROUTES} (pattern, app) VALUES (?, ?)",  # noqa: S608
                    change.routes.items(),
                )
            return change, has_country

    def close(self) -> None:
        """Do nothing: the file is closed after each call."""


class PostgresEnd:
    """A routing database on a PostgreSQL server."""

    def __init__(self, settings: PostgresSettings) -> None:
        from edgeproxy.store.postgres.link import Link

        self._link = Link(settings)

    @property
    def path(self) -> PostgresUrl:
        """The URL; as text it has no password."""
        return self._link.url

    def read(self) -> Cargo:
        """Return the whole content but withheld backends. Raises StoreError."""
        from edgeproxy.store.postgres.leases import withheld_in

        async def work(connection: PostgresConnection) -> Cargo:
            cargo, withheld = await self._read(connection), await withheld_in(connection)
            nodes = [each for each in cargo.nodes if each.values["id"] not in withheld]
            return replace(cargo, nodes=nodes)

        return self._link.read(work)

    async def _read(self, connection: PostgresConnection) -> Cargo:
        from edgeproxy.store.postgres.schema import columns_of, columns_to_read, routes_of

        names = ", ".join(columns_to_read(await columns_of(connection, self.path)))
        rows = await connection.fetch(f"SELECT {names} FROM backends ORDER BY id")  # noqa: S608
        return Cargo(nodes_of(list(map(dict, rows))), _routes(await routes_of(connection)))

    def write(self, decide: Callable[[Cargo], Change]) -> tuple[Change, bool]:
        """Write the change that `decide` chooses by the content, in one transaction.

        Missing parts of the schema are created. Return the change, and whether the table has
        countries.
        """
        from edgeproxy.store.postgres import nodes
        from edgeproxy.store.postgres.schema import columns_of, make_parts, missing_parts

        async def work(connection: PostgresConnection) -> tuple[Change, bool]:
            if await missing_parts(connection):
                await make_parts(connection)
            await connection.execute("LOCK TABLE backends IN SHARE ROW EXCLUSIVE MODE")
            columns = await columns_of(connection, self.path)
            change = decide(await self._read(connection))
            added = [nodes.values_of(backend, columns) for backend in change.added]
            replaced = [nodes.values_of(backend, columns) for backend in change.replaced]
            if added:
                rows = [tuple(values.values()) for values in added]
                await connection.executemany(nodes.insert(added[0]), rows)
            if replaced:
                names = {name: None for name in replaced[0] if name != "id"}
                pairs = [(values["id"], *(values[name] for name in names)) for values in replaced]
                await connection.executemany(nodes.update(names, columns), pairs)
            if change.routes:
                query = f"DELETE FROM {ROUTES} WHERE pattern = ANY($1)"  # noqa: S608
                await connection.execute(query, list(change.routes))
                query = f"INSERT INTO {ROUTES} (pattern, app) VALUES ($1, $2)"  # noqa: S608
                await connection.executemany(query, list(change.routes.items()))
            return change, COUNTRY in columns

        return self._link.edit(work)

    def close(self) -> None:
        """Close the connections to the server."""
        self._link.close()


End = SqliteEnd | PostgresEnd
"""One of the two databases."""
