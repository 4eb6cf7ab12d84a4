"""Server names in a file; what files and servers have in common is in the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.store.sqlite.store import SqliteStore
from tests.store.editing import documented, execute


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return documented(tmp_path / "routing.db")


def test_rows_of_no_use_are_skipped_by_name(path: Path) -> None:
    execute(
        path,
        "CREATE TABLE edgeproxy_routes (pattern TEXT, app TEXT);"
        "INSERT INTO edgeproxy_routes VALUES ('a b', 'web'), ('good.example.com', 'web'),"
        " (NULL, 'x'), ('GOOD.example.com', 'other')",
    )
    snapshot = SqliteStore(path).read()
    assert snapshot.routes in ({"good.example.com": "web"}, {"good.example.com": "other"})
    assert len(snapshot.skipped) == 3
    assert all("edgeproxy_routes" in each.id for each in snapshot.skipped)
