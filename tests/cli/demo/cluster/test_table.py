"""The rows that edits should lead to are those of a real routing database after the same edits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from edgeproxy.cli.demo.cluster.table import (
    InForce,
    deletion,
    in_force_with,
    insertion,
    rows_after,
    rows_of,
    setting,
)
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.cluster.rows import LEASES, ROUTES
from edgeproxy.store.sqlite.database import create

BACKENDS = [Backend(f"n{number}", "myapp", "sa", "127.0.0.1", 8000 + number) for number in (1, 2)]
EDITS = [
    insertion(BACKENDS),
    setting("weight", 5, "n1"),
    setting("healthy", 0, "n1"),
    deletion("n2"),
]


def test_edits_lead_to_the_same_rows_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "routing.db"
    create(path)
    for count in range(len(EDITS)):
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(EDITS[count])
        assert rows_of(path) == rows_after(EDITS[: count + 1])


def test_every_edit_shows_in_the_rows() -> None:
    steps = [rows_after(EDITS[:count])["backends"] for count in range(len(EDITS) + 1)]
    assert [len(rows) for rows in steps] == [0, 2, 2, 2, 1]
    assert all(before != after for before, after in pairwise(steps))


def test_a_row_of_any_table_counts(tmp_path: Path) -> None:
    path = tmp_path / "routing.db"
    create(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {ROUTES} (pattern TEXT PRIMARY KEY, app TEXT NOT NULL)")
        assert rows_of(path) == rows_after([])
        connection.execute(f"INSERT INTO {ROUTES} VALUES ('*', 'myapp')")
        connection.commit()
    assert rows_of(path) != rows_after([])
    assert rows_of(path)[LEASES] == []


def test_what_is_in_force_follows_from_the_rows() -> None:
    assert in_force_with(rows_after(EDITS[:3])) == {
        InForce("n1", False, 5, 100),
        InForce("n2", True, 1, 100),
    }
