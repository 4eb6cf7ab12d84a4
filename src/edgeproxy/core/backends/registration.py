"""What becomes of backends that register and leave, decided on rows that are given.

A registered backend is a row like any other that has a home: the POP it registered with, which
hears its heartbeats. It moves to whichever POP it registers with next. It may leave anywhere, but
for its silence (`is_expired`) only its home may take it out, for nobody else listened.

What operators have said stays: a registration again changes neither `healthy` nor `deleted`.
A `caller` speaks for its own address alone; a row without one, or that an operator has removed, is
nobody's.
Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY, RowError, check_address
from edgeproxy.errors import StoreError


class CrowdedError(StoreError):
    """There are as many registered backends as there may be."""


class NotYoursError(StoreError):
    """This backend has another address than the caller."""


@dataclass(frozen=True, slots=True)
class Register:
    """Register a backend, if there are not `most` already. Gives whether it is new."""

    backend: Backend
    most: int
    caller: str | None = None


@dataclass(frozen=True, slots=True)
class Deregister:
    """Take out a registered backend. Gives whether there was one to be taken out."""

    backend_id: str
    is_expired: bool = False
    caller: str | None = None


Edit = Register | Deregister
Outcome = bool | StoreError


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is stored.

    Attributes:
        values: The documented columns and the country, which is '' where none is known.
        home: The POP with which it registered; None: an operator's.
    """

    values: Mapping[str, object]
    home: str | None


def id_of(edit: Edit) -> str:
    """Return which backend an edit is about."""
    return edit.backend.id if isinstance(edit, Register) else edit.backend_id


def apply_changes(
    edits: Iterable[Edit], rows: Mapping[str, Row], home: str, count: int
) -> tuple[list[Outcome], dict[str, Row | None]]:
    """Return what becomes of each edit in turn, and the rows that have to be written.

    `rows` are those of these ids, `count` is how many are registered in all, `home` who asks.
    A row of None has to be deleted. Who has just registered is not silent.
    """
    now: dict[str, Row | None] = dict(rows)
    outcomes: list[Outcome] = []
    heard: set[str] = set()
    for edit in edits:
        found = now.get(id_of(edit))
        is_registered = found is not None and found.home is not None
        if edit.caller is not None and _owner(found) not in (None, edit.caller):
            outcomes.append(NotYoursError("a backend may speak only for its own address"))
        elif isinstance(edit, Deregister):
            is_silent = found is not None and found.home == home and edit.backend_id not in heard
            leaves = is_silent if edit.is_expired else is_registered
            if leaves:
                now[edit.backend_id] = None
                count -= 1
            outcomes.append(leaves)
        elif not is_registered and count >= edit.most:
            outcomes.append(_crowded(edit.most))
        else:
            heard.add(edit.backend.id)
            now[edit.backend.id] = _registered(edit.backend, found, home)
            was_removed = found is not None and found.values["deleted"] == 1
            outcomes.append(found is None or (was_removed and not is_registered))
            count += not is_registered
    return outcomes, {each: row for each, row in now.items() if row != rows.get(each)}


def _owner(found: Row | None) -> str | None:
    """Return for which address one has to speak to change this row, None for any."""
    if found is None or (found.home is None and found.values["deleted"] == 1):
        return None
    try:
        return check_address(found.values["wg_ip"])
    except RowError:
        return None


def _registered(backend: Backend, found: Row | None, home: str) -> Row:
    values: dict[str, object] = {name: getattr(backend, name) for name in COLUMNS}
    values |= {"healthy": 1, "deleted": 0, COUNTRY: backend.country or ""}
    if found is not None:
        values["healthy"] = found.values["healthy"]
        if found.home is not None:
            values["deleted"] = found.values["deleted"]
    return Row(values, home)


def _crowded(most: int) -> CrowdedError:
    return CrowdedError(
        f"{most} backends are registered, and no more are allowed: deregister some, "
        "or raise EDGEPROXY_API_MAX_BACKENDS"
    )
