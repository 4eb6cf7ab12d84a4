"""What the state says of the cluster; its tables are those of a real Corrosion."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.cluster.corrosion.cluster_facts import read_facts
from edgeproxy.cluster.corrosion.configuration import POPS, schema_text
from edgeproxy.cluster.corrosion.members import Facts, Pop
from edgeproxy.cluster.engine import EngineError
from tests.cluster.corrosion.pops import corrosions, needs_corrosion, stop

TABLES = """
    CREATE TABLE crsql_site_id (site_id BLOB NOT NULL UNIQUE, ordinal INTEGER PRIMARY KEY);
    CREATE TABLE __corro_state (key TEXT NOT NULL PRIMARY KEY, value);
    CREATE TABLE __corro_bookkeeping_gaps (actor_id BLOB NOT NULL, start INTEGER, end INTEGER);
    CREATE TABLE __corro_seq_bookkeeping (
        site_id BLOB NOT NULL, db_version INTEGER NOT NULL, start_seq, end_seq, last_seq, ts
    );
    INSERT INTO crsql_site_id VALUES (x'aa', 0), (x'bb', 1);
"""


def test_names_gaps_and_parts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema_text() + TABLES)
        assert read_facts(path) == Facts("AA", 0, {}, {})
        connection.executescript(
            f"""
            INSERT INTO {POPS} VALUES ('AA', 'sa', 'br'), ('BB', 'us', '');
            INSERT INTO __corro_state VALUES ('cluster_id', 7);
            INSERT INTO __corro_bookkeeping_gaps VALUES (x'bb', 3, 5), (x'bb', 9, 9);
            INSERT INTO __corro_seq_bookkeeping (site_id, db_version)
                VALUES (x'bb', 6), (x'bb', 6), (x'cc', 1);
            INSERT INTO backends (id) VALUES ('a'), ('b');
            INSERT INTO edgeproxy_routes (pattern) VALUES ('*');
            """
        )
    pops = {"AA": Pop("sa", "br"), "BB": Pop("us", "")}
    assert read_facts(path) == Facts("AA", 7, pops, {"BB": 5, "CC": 1}, 3)


@pytest.mark.parametrize("content", [None, b"", b"music" * 1000])
def test_a_state_that_is_not_made_yet_is_a_fault(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match="cannot be read"):
        read_facts(path)


@needs_corrosion
def test_corrosion_has_these_tables(tmp_path: Path) -> None:
    both = corrosions(tmp_path, ("sa", "us"))
    facts = [read_facts(each.settings.db_path) for each in both]
    stop(both)
    assert {pop.node_id for pop in facts[0].pops.values()} == {"sa", "us"}
    assert facts[0].pops == facts[1].pops
    assert facts[0].cluster_id == facts[1].cluster_id > 0
    assert facts[0].missing == {}
