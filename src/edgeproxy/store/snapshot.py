"""The content of a routing database of any kind at one moment.

A row or route that cannot be used is skipped and named with the reason; the others count.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.rows import MAX_NAME_CHARS, RowError, parse_rows
from edgeproxy.core.cluster.rows import ROUTES
from edgeproxy.core.pacing import Pause, empty, no_pause, paced
from edgeproxy.core.routing.server_names import pattern

MAX_ROWS = 500_000
MAX_TEXT_BYTES = 256 << 20
"""How much is read of a table: what a view yields may never end."""


class Bounds:
    """Counts what is read of one table."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._rows = 0
        self._size = 0

    def fault_with(self, row: Iterable[object]) -> str | None:
        """Return why no more may be read, once this row is too much."""
        self._rows += 1
        for value in row:
            if isinstance(value, (str, bytes)):
                self._size += len(value)
        if self._rows <= MAX_ROWS and self._size <= MAX_TEXT_BYTES:
            return None
        return (
            f"holds too much in `{self._table}`: allowed are {MAX_ROWS:,} rows and "
            f"{MAX_TEXT_BYTES >> 20} MiB; if it is a view, does it end?"
        )


class SkippedRow(NamedTuple):
    """A row that cannot be used.

    Attributes:
        id: Its id, cut to the length that ids may have, or `row N`, counted from 1, without one.
        reason: What is wrong with the row, and what is allowed.
    """

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The routing database at one moment, in the order of its table.

    `routes` are the apps of server names (`core/routing/server_names`), from the table `ROUTES`.
    """

    backends: tuple[Backend, ...] = ()
    skipped: tuple[SkippedRow, ...] = ()
    routes: dict[str, str] = field(default_factory=dict)


def snapshot_of(
    rows: list[dict[str, object]],
    routes: Iterable[tuple[object, object]],
    rest: Pause = no_pause,
    withheld: Container[object] = (),
) -> Snapshot:
    """Return the snapshot of these rows; `core/backends/rows` checks each. Empties `rows`.

    The rows of backends that are `withheld` count as none.
    """
    backends: list[Backend] = []
    skipped: list[SkippedRow] = []

    def used() -> Iterator[tuple[int, dict[str, object]]]:
        return (each for each in enumerate(rows, start=1) if each[1].get("id") not in withheld)

    both = zip(used(), parse_rows(row for _, row in used()), strict=True)
    for (number, row), parsed in paced(both, rest):
        if isinstance(parsed, RowError):
            name = row.get("id")
            label = name[:MAX_NAME_CHARS] if isinstance(name, str) and name else f"row {number}"
            skipped.append(SkippedRow(label, parsed.reason))
        else:
            backends.append(parsed)
    apps: dict[str, str] = {}
    for name, app in routes:
        try:
            if not isinstance(name, str) or not isinstance(app, str) or not app:
                raise ValueError("a server name and its app must be text, and the app not empty")
            if apps.setdefault(pattern(name), app) != app:
                raise ValueError("it occurs twice, with different apps")
        except ValueError as error:
            label = f"{ROUTES} {str(name)[:MAX_NAME_CHARS]!r}"
            skipped.append(SkippedRow(label, str(error)))
    empty(rows, rest)
    return Snapshot(tuple(backends), tuple(skipped), apps)
