"""The edits of a routing database of any kind.

This module holds what `sqlite` and `postgres` have in common: the edits of nodes and of server
names, the rows of registered backends, and their errors. The two say how a row is found and
written.

Values are checked before the database is touched. If something is raised, nothing has changed,
unless the message says that the outcome is unknown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeproxy.core.backends.rows import (
    COLUMNS,
    COUNTRY,
    RowError,
    check_column,
    check_limits,
    check_weight,
    parse_row,
    parse_rows,
    shown,
)
from edgeproxy.core.routing.server_names import pattern
from edgeproxy.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.core.backends.registration import Edit, Outcome, Ownership

MAX_APP_CHARS = 128


# -- nodes -------------------------------------------------------------------------------


ENABLED = {"healthy": 1, "deleted": 0}
"""What a node that takes clients has; `DISABLED` is what one has that takes none."""
DISABLED = {"healthy": 0}
ADD_COUNTRY = f"ALTER TABLE backends ADD COLUMN {COUNTRY} TEXT"
"""What an operator has to do for countries to be kept."""

MAX_GUESSES = 10_000
"""How many ids are compared with one that is unknown."""


class UnknownNodeError(StoreError):
    """The database has no node with this id; the message names those of `ids` that are similar.

    These are looked for only when the message is read: that takes seconds with many long ids, and
    the API, which shows no such ids, must not be held up by whoever asks for unknown ones.
    """

    def __init__(self, node_id: str, ids: Sequence[str], where: object) -> None:
        super().__init__(f"no node {shown(node_id)} in {where}")
        self._node_id = node_id
        self._ids = ids

    def __str__(self) -> str:
        """Return the message."""
        from difflib import get_close_matches

        close = get_close_matches(self._node_id, self._ids)
        guess = f"did you mean {' or '.join(map(shown, close))}? " if close else ""
        return f"{self.reason}: {guess}`edgeproxy db show` lists all"


LEASE_ENDED = (
    "its lease has ended: it is used again when it registers, and deleted when it has not done so "
    "for an hour"
)
"""The fault of a row that has nothing wrong but belongs to a backend that is withheld."""


class Node(NamedTuple):
    """One row of the routing database as it is, usable or not.

    Attributes:
        values: The documented columns in the documented order, then the country where the
            table has that column.
        fault: Why the proxy skips this row, or None.
    """

    values: Mapping[str, object]
    fault: str | None = None


class NodeEdits(ABC):
    """The nodes of one routing database.

    Each edit is one short transaction and returns the node as it is afterwards. Running proxies
    notice the edit on their own.

    Every method raises `StoreError` when the database or the node is not as it must be, and
    `RowError`, a `UsageError`, for a value that is not allowed.
    """

    @property
    @abstractmethod
    def path(self) -> object:
        """The name of the database: a file, or a URL without its password."""

    @abstractmethod
    def read(self) -> list[Node]:
        """Return all nodes, including deleted and faulty ones."""

    @abstractmethod
    def add(self, backend: Backend) -> Node:
        """Insert a node (from `core.backends.rows.parse_node`) whose id is not in the table yet.

        A registered backend that is withheld counts as none: its row goes.
        """

    @abstractmethod
    def change(self, node_id: str, **values: object) -> Node:
        """Set these columns of a node, without checking the values."""

    @abstractmethod
    def delete(self, node_id: str) -> Node:
        """Delete the row of a node; return the node as it was."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection to the database, if one is open."""

    def get(self, node_id: str) -> Node:
        """Return a node as it is, also a deleted or a faulty one."""
        return self.get_all([node_id])[0]

    def get_all(self, ids: Sequence[str]) -> list[Node]:
        """Return these nodes as they are. None of them is suggested for one that is missing."""
        found: dict[object, Node] = {}
        for node in self.read():
            found.setdefault(node.values["id"], node)
        for node_id in ids:
            if node_id not in found:
                others = [str(each) for each in found if each not in ids]
                raise UnknownNodeError(node_id, others[:MAX_GUESSES], self.path)
        return [found[node_id] for node_id in ids]

    def set(self, node_id: str, values: Mapping[str, object]) -> Node:
        """Set some columns of a node. A limit is checked, and written, together with the other."""
        checked = {name: check_column(name, value) for name, value in values.items()}
        limits = {name: values[name] for name in ("soft_limit", "hard_limit") if name in values}
        if len(limits) == 1 or COUNTRY in checked:
            present = self.get(node_id).values
            if COUNTRY in checked and COUNTRY not in present:
                raise StoreError(
                    f"{self.path}: its table `backends` has no column country: add it with "
                    f"{ADD_COUNTRY}"
                )
            checked |= {name: present[name] for name in ("soft_limit", "hard_limit") if limits}
            checked |= limits
        if limits:
            check_limits(checked["soft_limit"], checked["hard_limit"])
        return self.change(node_id, **checked)

    def remove(self, node_id: str) -> Node:
        """Mark a node as deleted; `enable` brings it back."""
        return self.change(node_id, deleted=1)

    def enable(self, node_id: str) -> Node:
        """Let a node take clients: healthy and not deleted."""
        return self.change(node_id, **ENABLED)

    def disable(self, node_id: str) -> Node:
        """Keep clients from a node: not healthy."""
        return self.change(node_id, **DISABLED)

    def set_weight(self, node_id: str, weight: object) -> Node:
        """Set how large a share of new clients a node takes."""
        return self.change(node_id, weight=check_weight(weight))

    def set_limits(self, node_id: str, soft_limit: object, hard_limit: object) -> Node:
        """Set both connection limits of a node."""
        soft, hard = check_limits(soft_limit, hard_limit)
        return self.change(node_id, soft_limit=soft, hard_limit=hard)


def nodes_of(rows: Sequence[Mapping[str, object]], withheld: Container[object] = ()) -> list[Node]:
    """Return the nodes of these rows, by column; all rows of a table have the same columns.

    Those of backends that are `withheld` have the fault LEASE_ENDED.
    """
    names = (*COLUMNS, COUNTRY) if rows and COUNTRY in rows[0] else COLUMNS

    def fault(row: Mapping[str, object], parsed: object) -> str | None:
        if row["id"] in withheld:
            return LEASE_ENDED
        return parsed.reason if isinstance(parsed, RowError) else None

    return [
        Node({name: row[name] for name in names}, fault(row, parsed))
        for row, parsed in zip(rows, parse_rows(rows), strict=True)
    ]


def lack_of_columns(columns: Sequence[str]) -> str | None:
    """Return why a table with these columns cannot be used, or None."""
    missing = [name for name in COLUMNS if name not in columns]
    if not missing:
        return None
    return (
        f"has no column {', '.join(missing)} in its table `backends`: add what is missing "
        "with ALTER TABLE backends ADD COLUMN and give it a value in every row"
    )


def exists_already(node_id: str, *, soft_deleted: bool) -> StoreError:
    """Return the error for an id that is in use."""
    if soft_deleted:
        return StoreError(
            f"node {shown(node_id)} exists but is removed: `edgeproxy node enable` restores it, "
            "`edgeproxy node delete` makes its id free"
        )
    return StoreError(
        f"node {shown(node_id)} exists already: change it with `edgeproxy node set`, "
        "or choose another id"
    )


# -- registered backends -----------------------------------------------------------------


class RefusedError(StoreError):
    """The database refuses a row, for instance because of a CHECK that an operator added."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"the routing database refuses this row: {reason}")


def check_usable(stored: Mapping[str, object] | None) -> None:
    """Raise RefusedError unless a row that was written is there and can be routed to.

    A column of another type makes 100.0 of 100, and a trigger may do anything.
    """
    if stored is None:
        raise RefusedError("a trigger or a rule of its table keeps it out")
    try:
        parse_row(stored)
    except RowError as error:
        raise RefusedError(
            f"its table makes a row of it that cannot be used: {error.reason}; see the types of "
            "its columns, and its triggers"
        ) from None


def check_types(wanted: Mapping[str, object], stored: Mapping[str, object]) -> None:
    """Raise RefusedError if columns made values of another type of those that were written."""
    for name, value in wanted.items():
        if type(stored[name]) is not type(value):
            raise RefusedError(
                f"its table makes {shown(stored[name])} of {name} {shown(value)}: see the type of "
                "that column"
            )


def check_gone(stored: object | None) -> None:
    """Raise RefusedError if a row that was deleted is still there."""
    if stored is not None:
        raise RefusedError("a trigger or a rule of its table keeps it")


class RegisteredRows(Protocol):
    """The registered backends of one routing database."""

    def ownership(self) -> Ownership:
        """Return who hears the backends. Raises StoreError."""

    def apply(self, edits: Sequence[Edit]) -> list[Outcome]:
        """Apply all edits in order, in one transaction; return the outcome of each.

        A refused edit does not affect the others. Raises StoreError if nothing was done.
        """


# -- server names ------------------------------------------------------------------------


class RouteEdits(ABC):
    """The server names of one routing database, each with its app.

    Running proxies notice an edit on their own. Every method raises `StoreError` when the database
    is not as it must be, and `UsageError` for a value that is not allowed.
    """

    @abstractmethod
    def read(self) -> list[tuple[str, str]]:
        """Return pairs of a server name and its app, by name."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection to the database, if one is open."""

    def set(self, name: str, app: str) -> str:
        """Send the clients of a server name to an app; return the name in its normal form."""
        key = _normal_name(name)
        if not app or not app.isprintable() or len(app) > MAX_APP_CHARS:
            raise UsageError(f"app {app!r}: allowed is printable text of 1 to 128 characters")
        self._set(key, app)
        return key

    def remove(self, name: str) -> str:
        """Delete the route of a server name; return the name in its normal form."""
        key = _normal_name(name)
        if not self._remove(key):
            raise StoreError(f"there is no route of {key}; see `edgeproxy route list`")
        return key

    @abstractmethod
    def _set(self, key: str, app: str) -> None:
        """Store a route; create the table if it is missing."""

    @abstractmethod
    def _remove(self, key: str) -> bool:
        """Delete a route; return whether there was one."""


def _normal_name(name: str) -> str:
    """Return a server name in its normal form. Raises UsageError."""
    try:
        return pattern(name)
    except ValueError as error:
        raise UsageError(f"{name!r}: {error}") from None
