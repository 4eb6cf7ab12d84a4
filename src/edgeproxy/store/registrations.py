"""Backends that register themselves: their rows, and which rows are theirs.

A registered backend is a row of `backends` like any other, beside its id in the side table
`edgeproxy_leases`, so that after a restart it is known who has to show life. That table is written
when one registers or leaves, never by a heartbeat. A trigger takes an id out of it when the row is
deleted, by whatever tool: a node that an operator adds afterwards has no lease.

What operators have said stays: a registration again changes neither `healthy` nor `deleted`.
The country is kept beside the id, because the documented table has no column for it; where it has,
it is written there too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edgeproxy.core.model import Backend
from edgeproxy.core.rows import COLUMNS, COUNTRY
from edgeproxy.errors import StoreError
from edgeproxy.store.database import (
    LEASES,
    READ_WAIT_SECS,
    connect,
    naming_faults,
    read_columns,
    transaction,
)

_SIDE_TABLE = (
    f"CREATE TABLE IF NOT EXISTS {LEASES} (id TEXT PRIMARY KEY, country TEXT)",
    f"""CREATE TRIGGER IF NOT EXISTS {LEASES}_end AFTER DELETE ON backends
        BEGIN DELETE FROM {LEASES} WHERE id = OLD.id; END""",  # noqa: S608
)
_FIND = f"""SELECT {", ".join(f"b.{name}" for name in COLUMNS)}, l.id IS NOT NULL, l.country
    FROM backends b LEFT JOIN {LEASES} l ON l.id = b.id WHERE b.id = ?"""  # noqa: S608
_INSERT = f"""INSERT INTO backends ({", ".join(COLUMNS)})
    VALUES ({", ".join(f":{name}" for name in COLUMNS)})"""  # noqa: S608
_CHANGED = tuple(name for name in COLUMNS if name != "id")
_UPDATE = f"""UPDATE backends SET {", ".join(f"{name} = :{name}" for name in _CHANGED)}
    WHERE id = :id"""  # noqa: S608
_LEASE = f"""INSERT INTO {LEASES} (id, country) VALUES (:id, :country)
    ON CONFLICT (id) DO UPDATE SET country = excluded.country"""  # noqa: S608
_COUNTRY = "UPDATE backends SET country = :country WHERE id = :id"
_DELETE = f"DELETE FROM backends WHERE id = ? AND id IN (SELECT id FROM {LEASES})"  # noqa: S608
_COUNT = f"SELECT count(*) FROM {LEASES}"  # noqa: S608


class RefusedError(StoreError):
    """The database itself refuses a row, for instance by a CHECK of its operator."""


class CrowdedError(StoreError):
    """There are as many registered backends as there may be."""


@dataclass(frozen=True, slots=True)
class Put:
    """Register a backend, if there are not `most` already. Gives whether it is new."""

    backend: Backend
    most: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Delete the row of a registered backend. Gives whether there was one."""

    backend_id: str


Edit = Put | Leave
Outcome = bool | StoreError


class Registrations:
    """The registered backends of one routing database. For one thread at a time."""

    def __init__(self, path: Path, wait_secs: float) -> None:
        self._path = path
        self._wait_secs = wait_secs

    def known(self) -> set[str]:
        """Return the ids of all registered backends. Raises StoreError."""
        with naming_faults(self._path), closing(connect(self._path, READ_WAIT_SECS)) as connection:
            if not _has_side_table(connection):
                return set()
            rows = connection.execute(
                f"SELECT id FROM {LEASES} WHERE id IN (SELECT id FROM backends)"  # noqa: S608
            )
            return {str(backend_id) for (backend_id,) in rows}

    def apply(self, edits: Sequence[Edit]) -> list[Outcome]:
        """Do all of this in one transaction, in this order; return what became of each.

        One that is refused leaves the others alone. Raises StoreError if nothing was done.
        """
        with transaction(self._path, self._wait_secs) as connection:
            for statement in _SIDE_TABLE if not _has_side_table(connection) else ():
                connection.execute(statement)
            has_country = COUNTRY in read_columns(connection, self._path)
            (count,) = connection.execute(_COUNT).fetchone()
            outcomes: list[Outcome] = []
            for edit in edits:
                connection.execute("SAVEPOINT edit")
                try:
                    if isinstance(edit, Leave):
                        left = connection.execute(_DELETE, (edit.backend_id,)).rowcount > 0
                        outcomes.append(left)
                        count -= left
                    else:
                        is_new, is_leased = _put(connection, edit, has_country, count)
                        outcomes.append(is_new)
                        count += is_leased
                except StoreError as error:
                    connection.execute("ROLLBACK TO edit")
                    outcomes.append(error)
                except sqlite3.IntegrityError as error:
                    connection.execute("ROLLBACK TO edit")
                    reason = f"the routing database refuses this row: {error}"
                    outcomes.append(RefusedError(reason))
                connection.execute("RELEASE edit")
            return outcomes


def _put(
    connection: sqlite3.Connection, edit: Put, has_country: bool, count: int
) -> tuple[bool, bool]:
    """Write a registered backend; return whether it is new, and whether its lease is."""
    backend = edit.backend
    values: dict[str, object] = {name: getattr(backend, name) for name in COLUMNS}
    values[COUNTRY] = backend.country
    found = connection.execute(_FIND, (backend.id,)).fetchone()
    is_registered = found is not None and bool(found[-2])
    if not is_registered and count >= edit.most:
        raise CrowdedError(
            f"{edit.most} backends are registered, and no more are allowed: deregister some, "
            "or raise EDGEPROXY_API_MAX_BACKENDS"
        )
    if found is None:
        connection.execute(_INSERT, values)
        is_new = True
    else:
        before = dict(zip(COLUMNS, found, strict=False))
        values["healthy"] = before["healthy"]
        if is_registered:
            values["deleted"] = before["deleted"]
            if found[-1] == backend.country and all(
                before[each] == values[each] for each in before
            ):
                return False, False  # nothing is written
        connection.execute(_UPDATE, values)
        is_new = before["deleted"] == 1 and not is_registered
    connection.execute(_LEASE, values)
    if has_country:
        connection.execute(_COUNTRY, values)
    return is_new, not is_registered


def _has_side_table(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (f"{LEASES}_end",))
    return tables.fetchone() is not None
