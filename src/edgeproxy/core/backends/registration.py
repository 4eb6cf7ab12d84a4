"""Decides what registering and deregistering a backend does to the rows of the database.

A registered backend is a row with a home: the POP that it registered with, which hears its
heartbeats. It moves when it registers with another POP. It may deregister anywhere, but only its
home may remove it because its lease expired (`is_expired`), since only the home hears heartbeats.

An operator's intent stays: registering again changes neither `healthy` nor `deleted`. A row that an
operator added stays the operator's, also after it was removed: its id cannot be registered. A
`caller` may change only a backend with the caller's own address, unless the row has no valid one.

This module decides; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY, RowError, check_address, shown
from edgeproxy.errors import StoreError


class CrowdedError(StoreError):
    """The limit of registered backends is reached."""


class NotYoursError(StoreError):
    """This backend has another address than the caller."""


class OperatorsRowError(StoreError):
    """An operator has added this backend: it cannot be registered."""


@dataclass(frozen=True, slots=True)
class Register:
    """Register a backend, unless `most` are registered. The outcome says whether it is new."""

    backend: Backend
    most: int
    caller: str | None = None


@dataclass(frozen=True, slots=True)
class Deregister:
    """Remove a registered backend. The outcome says whether it was registered."""

    backend_id: str
    is_expired: bool = False
    caller: str | None = None


Edit = Register | Deregister
Outcome = bool | StoreError


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is stored.

    Attributes:
        values: The documented columns and the country, '' if it is unknown.
        home: The POP that the backend registered with; None if an operator added the row.
    """

    values: Mapping[str, object]
    home: str | None


def id_of(edit: Edit) -> str:
    """Return the id of the backend that an edit changes."""
    return edit.backend.id if isinstance(edit, Register) else edit.backend_id


def apply_changes(
    edits: Iterable[Edit], rows: Mapping[str, Row], home: str, count: int
) -> tuple[list[Outcome], dict[str, Row | None]]:
    """Return the outcome of each edit, in order, and the rows to write; None deletes a row.

    `rows` are the present rows of the ids in `edits`, `count` is the number of registered backends
    in the database, `home` is this POP. A backend that registers among these edits is not removed
    as expired by a later one.
    """
    now: dict[str, Row | None] = dict(rows)
    outcomes: list[Outcome] = []
    heard: set[str] = set()
    for edit in edits:
        row = now.get(id_of(edit))
        is_registered = row is not None and row.home is not None
        if edit.caller is not None and _owner(row) not in (None, edit.caller):
            outcomes.append(NotYoursError("a caller may change only backends at its own address"))
        elif isinstance(edit, Deregister):
            is_silent = row is not None and row.home == home and edit.backend_id not in heard
            leaves = is_silent if edit.is_expired else is_registered
            if leaves:
                now[edit.backend_id] = None
                count -= 1
            outcomes.append(leaves)
        elif row is not None and not is_registered:
            outcomes.append(_operators(edit.backend.id))
        elif not is_registered and count >= edit.most:
            outcomes.append(_crowded(edit.most))
        else:
            heard.add(edit.backend.id)
            now[edit.backend.id] = _registered(edit.backend, row, home)
            outcomes.append(row is None)
            if not is_registered:
                count += 1
    return outcomes, {key: row for key, row in now.items() if row != rows.get(key)}


def _owner(row: Row | None) -> str | None:
    """Return the address that a caller needs to change this row, None for any address."""
    if row is None:
        return None
    try:
        return check_address(row.values["wg_ip"])
    except RowError:
        return None


def _registered(backend: Backend, before: Row | None, home: str) -> Row:
    values: dict[str, object] = {name: getattr(backend, name) for name in COLUMNS}
    values |= {"healthy": 1, "deleted": 0, COUNTRY: backend.country or ""}
    if before is not None:
        values |= {name: before.values[name] for name in ("healthy", "deleted")}
    return Row(values, home)


def _operators(backend_id: str) -> OperatorsRowError:
    return OperatorsRowError(
        f"an operator has added {shown(backend_id)}, so it cannot be registered: register another "
        "id, or let an operator make this one free with `edgeproxy node delete`"
    )


def _crowded(most: int) -> CrowdedError:
    return CrowdedError(
        f"{most} backends are registered, and no more are allowed: deregister some, "
        "or raise EDGEPROXY_API_MAX_BACKENDS"
    )
