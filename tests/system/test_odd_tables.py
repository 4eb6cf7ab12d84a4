"""API and commands on a table that was made in another way than documented: the right reason."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.store.editing import execute
from tests.system.api import registration as body_of
from tests.system.api import running, serve
from tests.system.backends import Backend
from tests.system.pop import Pop, row
from tests.system.proxy import run_edgeproxy

pytestmark = pytest.mark.system

COLUMNS = (
    "id TEXT PRIMARY KEY, app TEXT, region TEXT, wg_ip TEXT, port INTEGER, healthy INTEGER, "
    "weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER DEFAULT 0"
)
TABLES = {
    "blind to case": (
        f"CREATE TABLE backends ({COLUMNS});".replace("KEY", "KEY COLLATE NOCASE"),
        "takes the id 'FIRST' for 'first', which exists",
    ),
    "another type": (
        f"CREATE TABLE backends ({COLUMNS});".replace("weight INTEGER", "weight REAL"),
        "is not allowed: a whole number",
    ),
    "generated": (
        f"CREATE TABLE backends ({COLUMNS});".replace("DEFAULT 0", "AS (0)"),
        "generated column",
    ),
    "view": (f"CREATE TABLE kept ({COLUMNS}); CREATE VIEW backends AS SELECT * FROM kept;", "view"),
}
"""How the table is made, and why it refuses a backend with the id 'FIRST'."""


def put_first(pop: Pop, backend: Backend) -> None:
    """Insert an operator's row, wherever it belongs."""
    columns = "(id, app, region, wg_ip, port, healthy, weight, soft_limit, hard_limit)"
    values = f"('first', 'myapp', 'sa', '{backend.host}', {backend.port}, 1, 1, 100, 200)"
    (kind,) = kinds_of_table(pop)
    table = "kept" if kind == "view" else "backends"
    execute(pop.database, f"INSERT INTO {table} {columns} VALUES {values}")


def kinds_of_table(pop: Pop) -> list[str]:
    """Return whether `backends` is a table or a view."""
    with closing(sqlite3.connect(pop.database)) as connection:
        query = "SELECT type FROM sqlite_master WHERE name = 'backends'"
        return [str(kind) for (kind,) in connection.execute(query)]


@pytest.mark.parametrize("name", TABLES)
def test_what_a_table_refuses_is_a_conflict_with_its_reason_and_changes_nothing(
    pop: Pop, name: str
) -> None:
    made, reason = TABLES[name]
    execute(pop.database, made)
    first = running(pop, "first")
    put_first(pop, first)
    api = serve(pop)

    answer = api.ask("POST", "/api/v1/register", body_of(running(pop, "FIRST")))
    assert answer.status == 409
    assert reason in answer.said["error"]
    told = run_edgeproxy("node", "add", "FIRST", "sa", "127.0.0.1", "80", folder=pop.folder)
    assert told.returncode == 1
    assert reason in told.stderr

    assert api.ask("GET", "/api/v1/backends/FIRST").status == 404
    if name != "another type":  # its rows cannot be used
        assert pop.reached() == "first"
        listed = api.listed()
        assert list(listed) == ["first"]
        assert listed["first"]["port"] == first.port


def test_a_constraint_is_a_conflict_too(pop: Pop) -> None:
    made = f"CREATE TABLE backends ({COLUMNS});"
    execute(pop.database, made.replace("weight INTEGER", "weight INTEGER CHECK (weight < 10)"))
    execute(pop.database, row(running(pop, "first")))
    api = serve(pop)
    answer = api.ask("PUT", "/api/v1/backends/first/weight", {"weight": 10})
    assert answer.status == 409
    assert "CHECK constraint failed" in answer.said["error"]
    assert api.listed()["first"]["weight"] == 1
