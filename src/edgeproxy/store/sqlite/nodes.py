"""Editing the nodes of a routing database in an SQLite file.

Each edit is one short transaction on a connection of its own.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from edgeproxy.core.backends.rows import COLUMNS, COUNTRY, shown
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
from edgeproxy.store.sqlite.database import (
    EDIT_WAIT_SECS,
    connect,
    naming_faults,
    read_columns,
    read_rows,
    transaction,
)
from edgeproxy.store.sqlite.deletions import mark_deletion
from edgeproxy.store.sqlite.leases import read_withheld

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from edgeproxy.core.backends.backend import Backend

SAME_ID = "{0} = :id AND {0} = :id COLLATE BINARY"
"""Exactly this id: the column may be declared so that 'Node' equals 'node'."""

_THIS = SAME_ID.format("id")
DELETE = f"DELETE FROM backends WHERE {_THIS}"  # noqa: S608
_FIND = f"SELECT * FROM backends WHERE {_THIS}"  # noqa: S608
_NAMESAKE = "SELECT id FROM backends WHERE id = ? LIMIT 1"
REFUSING = {
    sqlite3.SQLITE_ERROR,  # a view, or a generated column
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}
"""Codes by which a table refuses a row; all others mean the file."""


class Nodes(NodeEdits):
    """The nodes of one routing database in a file.

    An edit waits up to `wait_secs` for other programs that read or write the file.
    """

    def __init__(self, path: Path, wait_secs: float = EDIT_WAIT_SECS) -> None:
        self._path = path
        self._wait_secs = wait_secs

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def read(self) -> list[Node]:
        """Return all nodes in the order of the table, including deleted and faulty ones."""
        with naming_faults(self._path), closing(connect(self._path, self._wait_secs)) as connection:
            rows = read_rows(connection, self._path)
            withheld = read_withheld(connection, self._path)
        return nodes_of(rows, withheld)

    def add(self, backend: Backend) -> Node:
        """Insert a node (from `core.backends.rows.parse_node`) whose id is not in the table yet."""
        with transaction(self._path, self._wait_secs) as connection:
            columns = read_columns(connection, self._path)
            present = self._find(connection, backend.id)
            if present is not None and present.fault == LEASE_ENDED:
                self._delete(connection, backend.id)
            elif present is not None:
                raise exists_already(backend.id, soft_deleted=present.values["deleted"] == 1)
            names = (*COLUMNS, COUNTRY) if COUNTRY in columns and backend.country else COLUMNS
            values = {name: getattr(backend, name) for name in names}
            with refusals(connection, backend.id):
                connection.execute(insert(names), values)
            node = self._find(connection, backend.id)
            check_usable(None if node is None else node.values)
            return self._get(connection, backend.id)

    def change(self, node_id: str, **values: object) -> Node:
        """Set these columns of a node, without checking the values."""
        with transaction(self._path, self._wait_secs) as connection:
            self._get(connection, node_id)
            with refusals(connection, node_id):
                connection.execute(update(values), {"id": node_id, **values})
            node = self._get(connection, node_id)
            check_types(values, node.values)
            return node

    def delete(self, node_id: str) -> Node:
        """Delete the row of a node; return the node as it was."""
        with transaction(self._path, self._wait_secs) as connection:
            node = self._get(connection, node_id)
            self._delete(connection, node_id)
            return node

    def close(self) -> None:
        """Do nothing: the file is closed after each edit."""

    def _delete(self, connection: sqlite3.Connection, node_id: str) -> None:
        with refusals(connection, node_id):
            connection.execute(DELETE, {"id": node_id})
        check_gone(self._find(connection, node_id))
        mark_deletion(connection, "backends", node_id)

    def _get(self, connection: sqlite3.Connection, node_id: str) -> Node:
        node = self._find(connection, node_id)
        if node is None:
            some = connection.execute(f"SELECT id FROM backends LIMIT {MAX_GUESSES}")  # noqa: S608
            raise UnknownNodeError(node_id, [str(name) for (name,) in some], self._path)
        return node

    def _find(self, connection: sqlite3.Connection, node_id: str) -> Node | None:
        columns = read_columns(connection, self._path)
        try:
            row = connection.execute(_FIND, {"id": node_id}).fetchone()
        except UnicodeEncodeError:  # the argument is not UTF-8, so it equals no id
            return None
        if row is None:
            return None
        withheld = read_withheld(connection, self._path)
        return nodes_of([dict(zip(columns, row, strict=True))], withheld)[0]


def insert(names: Collection[str]) -> str:
    """Return the statement that inserts these columns."""
    places = ", ".join(f":{name}" for name in names)
    return f"INSERT INTO backends ({', '.join(names)}) VALUES ({places})"  # noqa: S608


def update(names: Collection[str]) -> str:
    """Return the statement that sets these columns of one row."""
    pairs = ", ".join(f"{name} = :{name}" for name in names)
    return f"UPDATE backends SET {pairs} WHERE {_THIS}"  # noqa: S608


@contextmanager
def refusals(connection: sqlite3.Connection, node_id: str) -> Iterator[None]:
    """Turn what a table has against a change of this row into RefusedError."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in REFUSING:
            raise
        row = None
        if code == sqlite3.SQLITE_CONSTRAINT:
            row = connection.execute(_NAMESAKE, (node_id,)).fetchone()
        if row is None or row[0] == node_id:
            raise RefusedError(error) from None
        raise RefusedError(
            f"its table takes the id {shown(node_id)} for {shown(row[0])}, which exists"
        ) from None
