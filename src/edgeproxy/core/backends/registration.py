"""Decides what registering, falling silent and leaving does to the rows of the database.

A registered backend is a row with leases, one for each home: a POP that it registered with, which
hears its heartbeats. A lease is live until its home ends it, and only its home writes it; so POPs
that see each other's writes late never undo them. A backend may deregister anywhere: its row and
all of its leases go.

A backend whose leases have all ended is *withheld*: it counts as one without a row, for everybody.
Its row is deleted later (`removals`), by any POP, unless it registers again before.

An operator's intent stays: registering again changes neither `healthy` nor `deleted`. A row that an
operator added stays the operator's, also after it was removed: its id cannot be registered. A
`caller` may change only a backend with the caller's own address, unless the row has no valid one,
or is withheld.

This module decides; it writes nothing. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY, RowError, check_address, shown
from edgeproxy.errors import StoreError

WITHHELD_SECS = 3600
"""How long the row of a withheld backend is kept: a POP that is cut off may yet tell of a lease."""
MAX_WITHHELD = 10_000
"""How many of them are kept; of more, those that have been withheld longest are deleted sooner."""
REMOVED_AT_ONCE = 1000
"""How many rows are deleted in one transaction, so that it holds up no registration for long."""


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
    caller: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The lease that a backend has at this home has expired, at this time.

    The outcome says whether the backend is withheld by that.
    """

    backend_id: str
    at: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete the row of a backend that is withheld since `ended_by` or longer.

    The outcome says whether that was done.
    """

    backend_id: str
    ended_by: int


Edit = Register | Deregister | End | Remove
Outcome = bool | StoreError


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is stored.

    Attributes:
        values: The documented columns and the country, '' if it is unknown.
        leases: When the lease at each home has ended, None if it is live; empty if an operator
            added the row.
    """

    values: Mapping[str, object]
    leases: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Whether it is a registered backend with a lease that has not ended."""
        return None in self.leases.values()

    @property
    def ended_at(self) -> int | None:
        """When the last of its leases has ended; None if it is not withheld."""
        ends = [ended_at for ended_at in self.leases.values() if ended_at is not None]
        return max(ends) if ends and not self.is_live else None


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who hears the registered backends, as a database says.

    Attributes:
        here: The backends with a live lease at this home.
        elsewhere: Those with a lease at this home, live or not, and a live one at another.
        withheld: When the last lease of each withheld backend has ended.
    """

    here: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    withheld: Mapping[str, int] = field(default_factory=dict)


def id_of(edit: Edit) -> str:
    """Return the id of the backend that an edit changes."""
    return edit.backend.id if isinstance(edit, Register) else edit.backend_id


def apply_changes(
    edits: Iterable[Edit], rows: Mapping[str, Row], home: str, count: int
) -> tuple[list[Outcome], dict[str, Row | None]]:
    """Return the outcome of each edit, in order, and the rows to write; None deletes a row.

    `rows` are the present rows of the ids in `edits`, `count` is the number of registered backends
    with a live lease in the database, `home` is this POP. The lease of a backend that registers
    among these edits is not ended by a later one.
    """
    now: dict[str, Row | None] = dict(rows)
    outcomes: list[Outcome] = []
    heard: set[str] = set()
    for edit in edits:
        row = after = now.get(id_of(edit))
        was_live = row is not None and row.is_live
        outcome: Outcome = False
        if _is_foreign(edit, row):
            outcome = NotYoursError("a caller may change only backends at its own address")
        elif isinstance(edit, Register):
            if row is not None and not row.leases:
                outcome = _operators(edit.backend.id)
            elif not was_live and count >= edit.most:
                outcome = _crowded(edit.most)
            else:
                heard.add(edit.backend.id)
                after, outcome = _registered(edit.backend, row, home), not was_live
        elif isinstance(edit, End):
            is_silent = edit.backend_id not in heard
            if row is not None and row.leases.get(home, edit.at) is None and is_silent:
                after = replace(row, leases={**row.leases, home: edit.at})
                outcome = not after.is_live
        elif row is not None and _is_done_with(edit, row):
            after, outcome = None, True
        now[id_of(edit)] = after
        outcomes.append(outcome)
        count += (after is not None and after.is_live) - was_live
    return outcomes, {key: row for key, row in now.items() if row != rows.get(key)}


def removals(withheld: Mapping[str, int], now: int) -> list[Remove]:
    """Return what deletes the rows that need not be kept any more, the oldest first."""
    oldest = sorted(withheld.items(), key=lambda item: (item[1], item[0]))
    excess = len(oldest) - MAX_WITHHELD
    return [
        Remove(backend_id, ended_at)
        for number, (backend_id, ended_at) in enumerate(oldest[:REMOVED_AT_ONCE])
        if number < excess or ended_at <= now - WITHHELD_SECS
    ]


def _is_foreign(edit: Edit, row: Row | None) -> bool:
    """Return whether a caller may not change this row, because of its address."""
    if isinstance(edit, End | Remove) or edit.caller is None or row is None:
        return False
    if row.ended_at is not None:
        return False
    try:
        return check_address(row.values["wg_ip"]) != edit.caller
    except RowError:
        return False


def _is_done_with(edit: Deregister | Remove, row: Row) -> bool:
    """Return whether a row is to be deleted."""
    if isinstance(edit, Deregister):
        return row.is_live
    return row.ended_at is not None and row.ended_at <= edit.ended_by


def _registered(backend: Backend, before: Row | None, home: str) -> Row:
    values: dict[str, object] = {name: getattr(backend, name) for name in COLUMNS}
    values |= {"healthy": 1, "deleted": 0, COUNTRY: backend.country or ""}
    if before is None:
        return Row(values, {home: None})
    values |= {name: before.values[name] for name in ("healthy", "deleted")}
    return Row(values, {**before.leases, home: None})


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
