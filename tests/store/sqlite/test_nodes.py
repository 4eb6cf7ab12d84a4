"""Edits of a routing database in a file: locks, a missing file, a write-ahead log.

What files and servers have in common is in the conformance suite.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import Node, NodeEdits
from edgeproxy.store.sqlite.nodes import Nodes
from edgeproxy.store.sqlite.store import SqliteStore
from tests.store.conformance.test_edits import EDITS
from tests.store.editing import documented, execute, locked, release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEW = Backend("sa-node-2", "myapp", "sa", "10.50.1.2", 8080)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return documented(tmp_path / "routing.db")


@pytest.fixture
def nodes(path: Path) -> Nodes:
    return Nodes(path)


def raw(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM backends").fetchall()


def routed(path: Path) -> dict[str, Backend]:
    store = SqliteStore(path)
    try:
        return {backend.id: backend for backend in store.read().backends}
    finally:
        store.close()


@pytest.fixture(params=EDITS)
def edit(request: pytest.FixtureRequest) -> Callable[[NodeEdits, str], Node]:
    return EDITS[request.param]


def test_an_edit_of_a_missing_database_does_not_make_one(
    tmp_path: Path, edit: Callable[[NodeEdits, str], Node]
) -> None:
    path = tmp_path / "missing.db"
    with pytest.raises(StoreError, match=r"does not exist: .*`edgeproxy db init --db "):
        edit(Nodes(path), "sa-node-1")
    assert not path.exists()


def test_an_edit_of_a_locked_database_changes_nothing(
    path: Path, edit: Callable[[NodeEdits, str], Node]
) -> None:
    before = raw(path)
    with (
        locked(path),
        pytest.raises(StoreError, match="is locked by another program: nothing was changed, try"),
    ):
        edit(Nodes(path, wait_secs=0.05), "sa-node-1")
    assert raw(path) == before


def test_an_edit_waits_for_a_short_lock(nodes: Nodes, path: Path) -> None:
    with locked(path) as process:
        timer = threading.Timer(0.2, release, [process])
        timer.start()
        nodes.set_weight("sa-node-1", 9)
        timer.join()
    assert routed(path)["sa-node-1"].weight == 9


def test_edits_work_with_a_write_ahead_log(nodes: Nodes, path: Path) -> None:
    execute(path, "PRAGMA journal_mode = WAL")
    nodes.add(NEW)
    nodes.set_weight("sa-node-2", 7)
    assert routed(path)["sa-node-2"].weight == 7
