"""What editing a routing database means, whichever kind of database it is.

This module holds what `sqlite` and `postgres` have in common: the node edits, the rows of
registered backends, the checks of server names, and their errors. The two say how a row is found
and written.

Values are checked before the database is touched. If something is raised, nothing has changed,
unless the message says that the outcome is unknown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgeproxy.core.backends.rows import (
    COLUMNS,
    COUNTRY,
    RowError,
    check_limits,
    check_weight,
    shown,
)
from edgeproxy.core.routing.server_names import pattern
from edgeproxy.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.core.backends.registration import Edit, Outcome

MAX_APP_CHARS = 128


# -- nodes -------------------------------------------------------------------------------


class UnknownNodeError(StoreError):
    """The database has no node with this id."""


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
        """Insert a node (from `core.backends.rows.parse_node`) whose id is not in the table yet."""

    @abstractmethod
    def change(self, node_id: str, **values: int) -> Node:
        """Set these columns of a node, without checking the values."""

    @abstractmethod
    def delete(self, node_id: str) -> Node:
        """Delete the row of a node; return what it was."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection to the database, if one is open."""

    def remove(self, node_id: str) -> Node:
        """Mark a node as deleted; `enable` brings it back."""
        return self.change(node_id, deleted=1)

    def enable(self, node_id: str) -> Node:
        """Let a node take clients: healthy and not deleted."""
        return self.change(node_id, healthy=1, deleted=0)

    def disable(self, node_id: str) -> Node:
        """Keep clients from a node: not healthy."""
        return self.change(node_id, healthy=0)

    def set_weight(self, node_id: str, weight: object) -> Node:
        """Set how large a share of new clients a node takes."""
        return self.change(node_id, weight=check_weight(weight))

    def set_limits(self, node_id: str, soft_limit: object, hard_limit: object) -> Node:
        """Set both connection limits of a node."""
        soft, hard = check_limits(soft_limit, hard_limit)
        return self.change(node_id, soft_limit=soft, hard_limit=hard)


def node_of(row: Mapping[str, object], parsed: Backend | RowError) -> Node:
    """Return the node of a row and of the result of parsing it."""
    names = (*COLUMNS, COUNTRY) if COUNTRY in row else COLUMNS
    fault = parsed.reason if isinstance(parsed, RowError) else None
    return Node({name: row[name] for name in names}, fault)


def unknown_node(node_id: str, ids: list[str], where: object) -> UnknownNodeError:
    """Return the error for an id that is not in the database, with the most similar ids."""
    from difflib import get_close_matches

    close = get_close_matches(node_id, ids)
    guess = f"did you mean {' or '.join(map(shown, close))}? " if close else ""
    return UnknownNodeError(
        f"no node {shown(node_id)} in {where}: {guess}`edgeproxy db show` lists all"
    )


def exists_already(node_id: str, *, soft_deleted: bool) -> StoreError:
    """Return the error for an id that is in use."""
    if soft_deleted:
        return StoreError(
            f"node {shown(node_id)} exists but is removed: `edgeproxy node enable` restores it, "
            "`edgeproxy node delete` makes its id free"
        )
    return StoreError(
        f"node {shown(node_id)} exists already: change it with `edgeproxy node weight`, "
        "`limits`, `enable` or `disable`, or choose another id"
    )


# -- registered backends -----------------------------------------------------------------


class RefusedError(StoreError):
    """The database refuses a row, for instance because of a CHECK that an operator added."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"the routing database refuses this row: {reason}")


class RegisteredRows(Protocol):
    """The registered backends of one routing database."""

    def known(self) -> set[str]:
        """Return the ids of the backends whose home is this POP. Raises StoreError."""

    def apply(self, edits: Sequence[Edit]) -> list[Outcome]:
        """Apply all edits in order, in one transaction; return the outcome of each.

        A refused edit does not affect the others. Raises StoreError if nothing was done.
        """


# -- server names ------------------------------------------------------------------------


def check_app(app: str) -> None:
    """Raise UsageError for text that cannot be the name of an app."""
    if not app or not app.isprintable() or len(app) > MAX_APP_CHARS:
        raise UsageError(f"app {app!r}: allowed is printable text of 1 to 128 characters")


def normal_name(name: str) -> str:
    """Return a server name in its normal form, or raise UsageError."""
    try:
        return pattern(name)
    except ValueError as error:
        raise UsageError(f"{name!r}: {error}") from None


def unknown_route(name: str) -> StoreError:
    """Return the error for a server name that has no route."""
    return StoreError(f"there is no route of {name}; see `edgeproxy route list`")
