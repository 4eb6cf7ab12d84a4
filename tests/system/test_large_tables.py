"""A large table and an odd row cost the clients nothing."""

from __future__ import annotations

import pytest

from tests.store.editing import execute
from tests.system.pop import Pop
from tests.waiting import wait_until

pytestmark = pytest.mark.system

ROWS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO backends SELECT 'far-' || i, 'myapp', 'eu', '127.0.0.9', 1, 1, 1, 50, 100, 0 FROM n
"""


def test_clients_are_served_while_a_large_table_is_read_again_and_again(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve()
    execute(pop.database, ROWS)
    proxy.wait_for("table_published", backends="20001")
    before = proxy.memory_bytes()
    for edit in range(3):
        execute(pop.database, f"UPDATE backends SET weight = {2 + edit} WHERE id = 'far-1'")
        while len(proxy.seen("table_published", backends="20001")) < 2 + edit:
            assert pop.reached() == "sa-1"
    assert proxy.memory_bytes() < 2 * before, "replaced tables are freed"


def test_a_row_that_breaks_a_constraint_costs_only_itself(pop: Pop) -> None:
    backend = pop.backend("sa-1")
    proxy = pop.serve()
    execute(
        pop.database,
        "DROP TABLE backends; CREATE TABLE backends (id TEXT PRIMARY KEY, app TEXT, region TEXT, "
        "wg_ip TEXT, port INTEGER, healthy INTEGER, weight INTEGER, soft_limit INTEGER, "
        "hard_limit INTEGER, deleted INTEGER DEFAULT 0, country TEXT CHECK (length(country) = 2));"
        "PRAGMA ignore_check_constraints = 1;"
        f"INSERT INTO backends VALUES ('sa-1', 'myapp', 'sa', '{backend.host}', {backend.port}, "
        "1, 1, 100, 200, 0, NULL);"
        "INSERT INTO backends VALUES ('odd', 'myapp', 'sa', '127.0.0.1', 1, 1, 1, 1, 1, 0, 'BRA');",
    )
    proxy.wait_for("row_skipped", id="odd")
    wait_until(lambda: pop.reached() == "sa-1", "the sound row routes")
