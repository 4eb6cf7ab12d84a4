"""Editing the routing database: what `edgeproxy node` does, and whoever else may edit it.

Each edit is one short transaction and returns the node as it is afterwards. Values are
validated before the file is touched; when something is raised, nothing has changed. Running
proxies need not be told: they follow the file.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgeproxy.core.backends.rows import (
    COLUMNS,
    COUNTRY,
    RowError,
    check_limits,
    check_weight,
    parse_rows,
    shown,
)
from edgeproxy.errors import StoreError
from edgeproxy.store.sqlite.database import (
    EDIT_WAIT_SECS,
    connect,
    naming_faults,
    read_columns,
    read_rows,
    transaction,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

    from edgeproxy.core.backends.backend import Backend

_INSERT = """INSERT INTO backends
    (id, app, region, wg_ip, port, healthy, weight, soft_limit, hard_limit, deleted)
    VALUES (:id, :app, :region, :wg_ip, :port, :healthy, :weight, :soft_limit, :hard_limit,
            :deleted)"""
_REMOVE = "UPDATE backends SET deleted = 1 WHERE id = :id"
_ENABLE = "UPDATE backends SET healthy = 1, deleted = 0 WHERE id = :id"
_DISABLE = "UPDATE backends SET healthy = 0 WHERE id = :id"
_WEIGHT = "UPDATE backends SET weight = :weight WHERE id = :id"
_LIMITS = "UPDATE backends SET soft_limit = :soft, hard_limit = :hard WHERE id = :id"
_COUNTRY = "UPDATE backends SET country = :country WHERE id = :id"
_DELETE = "DELETE FROM backends WHERE id = :id"


class UnknownNodeError(StoreError):
    """There is no node of that id."""


@dataclass(frozen=True, slots=True)
class Node:
    """One row of the routing database as it is, usable or not.

    Attributes:
        values: The documented columns in the documented order, then the country where the
            table has that column.
        fault: Why the proxy skips this row, or None.
    """

    values: Mapping[str, object]
    fault: str | None = None


class NodeEdits(Protocol):
    """What can be done with the nodes of a routing database, whichever it is.

    Every method raises `StoreError` when the database or the node is not as it must be, and
    `RowError`, a `UsageError`, for a value that is not allowed.
    """

    @property
    def path(self) -> object:
        """What the database is called: a file, or a URL without its password."""

    def read(self) -> list[Node]:
        """Return all nodes, also deleted and faulty ones."""

    def add(self, backend: Backend) -> Node:
        """Insert a node (from `core.rows.parse_node`) whose id is not in the table yet."""

    def remove(self, node_id: str) -> Node:
        """Mark a node as deleted; `enable` brings it back."""

    def enable(self, node_id: str) -> Node:
        """Let a node take clients: healthy and not deleted."""

    def disable(self, node_id: str) -> Node:
        """Keep clients from a node: not healthy."""

    def set_weight(self, node_id: str, weight: object) -> Node:
        """Set how large a share of new clients a node takes."""

    def set_limits(self, node_id: str, soft_limit: object, hard_limit: object) -> Node:
        """Set both connection limits of a node."""

    def delete(self, node_id: str) -> Node:
        """Take a node out of the database for good; return what it was."""

    def close(self) -> None:
        """Let go of the database."""


class Nodes:
    """The nodes of one routing database in a file.

    Every method raises `StoreError` when the database or the node is not as it must be, and
    `RowError`, a `UsageError`, for a value that is not allowed.
    """

    def __init__(self, path: Path, wait_secs: float = EDIT_WAIT_SECS) -> None:
        self.path = path
        self._wait_secs = wait_secs

    def read(self) -> list[Node]:
        """Return all nodes in the order of the table, also deleted and faulty ones."""
        with naming_faults(self.path), closing(connect(self.path, self._wait_secs)) as connection:
            rows = read_rows(connection, self.path)
        return [node_of(row, parsed) for row, parsed in zip(rows, parse_rows(rows), strict=True)]

    def add(self, backend: Backend) -> Node:
        """Insert a node (from `core.rows.parse_node`) whose id is not in the table yet."""
        values = {name: getattr(backend, name) for name in COLUMNS}
        with transaction(self.path, self._wait_secs) as connection:
            columns = read_columns(connection, self.path)
            present = self._find(connection, backend.id)
            if present is not None:
                raise exists_already(backend.id, soft_deleted=present.values["deleted"] == 1)
            connection.execute(_INSERT, values)
            if COUNTRY in columns and backend.country:
                connection.execute(_COUNTRY, {"id": backend.id, "country": backend.country})
            return self._get(connection, backend.id)

    def remove(self, node_id: str) -> Node:
        """Mark a node as deleted; `enable` brings it back."""
        return self._change(_REMOVE, node_id)

    def enable(self, node_id: str) -> Node:
        """Let a node take clients: healthy and not deleted."""
        return self._change(_ENABLE, node_id)

    def disable(self, node_id: str) -> Node:
        """Keep clients from a node: not healthy."""
        return self._change(_DISABLE, node_id)

    def set_weight(self, node_id: str, weight: object) -> Node:
        """Set how large a share of new clients a node takes."""
        return self._change(_WEIGHT, node_id, weight=check_weight(weight))

    def set_limits(self, node_id: str, soft_limit: object, hard_limit: object) -> Node:
        """Set both connection limits of a node."""
        soft, hard = check_limits(soft_limit, hard_limit)
        return self._change(_LIMITS, node_id, soft=soft, hard=hard)

    def delete(self, node_id: str) -> Node:
        """Take a node out of the database for good; return what it was."""
        with transaction(self.path, self._wait_secs) as connection:
            node = self._get(connection, node_id)
            connection.execute(_DELETE, {"id": node_id})
            return node

    def close(self) -> None:
        """Do nothing: between edits no file is open."""

    def _change(self, statement: str, node_id: str, **values: int) -> Node:
        with transaction(self.path, self._wait_secs) as connection:
            self._get(connection, node_id)
            connection.execute(statement, {"id": node_id, **values})
            return self._get(connection, node_id)

    def _get(self, connection: sqlite3.Connection, node_id: str) -> Node:
        node = self._find(connection, node_id)
        if node is None:
            ids = [str(name) for (name,) in connection.execute("SELECT id FROM backends")]
            raise unknown_node(node_id, ids, self.path)
        return node

    def _find(self, connection: sqlite3.Connection, node_id: str) -> Node | None:
        columns = read_columns(connection, self.path)
        try:
            found = connection.execute("SELECT * FROM backends WHERE id = ?", (node_id,)).fetchone()
        except UnicodeEncodeError:  # what the shell gave is not UTF-8, so no id can be equal
            return None
        if found is None:
            return None
        row = dict(zip(columns, found, strict=True))
        return node_of(row, next(parse_rows([row])))


def node_of(row: Mapping[str, object], parsed: Backend | RowError) -> Node:
    """Return the node of a row, and of what it was found to be."""
    names = (*COLUMNS, COUNTRY) if COUNTRY in row else COLUMNS
    fault = parsed.reason if isinstance(parsed, RowError) else None
    return Node({name: row[name] for name in names}, fault)


def unknown_node(node_id: str, ids: list[str], where: object) -> UnknownNodeError:
    """Return the error that names a node that is not there, and what was probably meant."""
    from difflib import get_close_matches

    close = get_close_matches(node_id, ids)
    guess = f"did you mean {' or '.join(map(shown, close))}? " if close else ""
    return UnknownNodeError(
        f"no node {shown(node_id)} in {where}: {guess}`edgeproxy db show` lists all"
    )


def exists_already(node_id: str, *, soft_deleted: bool) -> StoreError:
    """Return the error that an id is in use."""
    if soft_deleted:
        return StoreError(
            f"node {shown(node_id)} exists but is removed: `edgeproxy node enable` restores it, "
            "`edgeproxy node delete` makes its id free"
        )
    return StoreError(
        f"node {shown(node_id)} exists already: change it with `edgeproxy node weight`, "
        "`limits`, `enable` or `disable`, or choose another id"
    )
