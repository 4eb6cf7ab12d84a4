"""Edits of the routing database: each does one thing whole, or changes nothing and says why."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from edgeproxy.core.model import Backend
from edgeproxy.core.rows import COLUMNS, RowError
from edgeproxy.errors import StoreError
from edgeproxy.store.nodes import Node, Nodes
from edgeproxy.store.sqlite import SqliteStore
from tests.store.editing import DOCUMENTED_TABLE, documented, execute, locked, release

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


def test_an_added_node_is_in_the_table_as_documented(nodes: Nodes, path: Path) -> None:
    node = nodes.add(NEW)
    row = ("sa-node-2", "myapp", "sa", "10.50.1.2", 8080, 1, 1, 100, 200, 0)
    assert node == Node(dict(zip(COLUMNS, row, strict=True)))
    assert raw(path)[3] == row
    assert routed(path)["sa-node-2"] == NEW


def test_an_id_is_added_only_once(nodes: Nodes, path: Path) -> None:
    before = raw(path)
    with pytest.raises(StoreError, match="node 'sa-node-1' exists already: change it with"):
        nodes.add(Backend("sa-node-1", "other", "us", "10.50.9.9", 1))
    assert raw(path) == before


def test_adding_a_removed_id_tells_how_to_restore_it(nodes: Nodes, path: Path) -> None:
    nodes.remove("sa-node-1")
    before = raw(path)
    with pytest.raises(StoreError, match="exists but is removed: `edgeproxy node enable` restores"):
        nodes.add(Backend("sa-node-1", "myapp", "sa", "10.50.9.9", 1))
    assert raw(path) == before


def test_an_id_is_added_only_once_even_without_a_primary_key(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    execute(path, DOCUMENTED_TABLE.replace("PRIMARY KEY", ""))
    nodes = Nodes(path)
    nodes.add(NEW)
    with pytest.raises(StoreError, match="exists already"):
        nodes.add(NEW)
    assert len(raw(path)) == 1


def test_extra_columns_keep_their_defaults_and_country_is_stored_where_there_is_one(
    nodes: Nodes, path: Path
) -> None:
    execute(path, "ALTER TABLE backends ADD COLUMN note TEXT DEFAULT 'by hand'")
    execute(path, "ALTER TABLE backends ADD COLUMN country TEXT")
    brazilian = Backend("br-1", "myapp", "sa", "10.50.1.3", 8080, country="BR")
    assert nodes.add(brazilian).values["country"] == "BR"
    assert nodes.add(NEW).values["country"] is None
    assert [row[10:] for row in raw(path)[3:]] == [("by hand", "BR"), ("by hand", None)]
    assert routed(path)["br-1"] == brazilian


def test_a_column_that_somebody_requires_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    execute(path, DOCUMENTED_TABLE.replace("id TEXT", "owner TEXT NOT NULL, id TEXT"))
    with pytest.raises(StoreError, match=r"NOT NULL constraint failed: backends\.owner"):
        Nodes(path).add(NEW)


def test_a_removed_node_stays_in_the_table_and_enable_restores_it(nodes: Nodes, path: Path) -> None:
    before = raw(path)
    assert nodes.remove("us-node-1").values["deleted"] == 1
    assert routed(path)["us-node-1"].deleted
    assert nodes.enable("us-node-1").values["deleted"] == 0
    assert raw(path) == before


def test_a_deleted_node_is_gone_and_its_id_is_free(nodes: Nodes, path: Path) -> None:
    assert nodes.delete("us-node-1").values["wg_ip"] == "10.50.2.1"
    assert [row[0] for row in raw(path)] == ["sa-node-1", "eu-node-1"]
    nodes.add(Backend("us-node-1", "myapp", "us", "10.50.2.9", 8080))
    assert routed(path)["us-node-1"].wg_ip == "10.50.2.9"


def test_a_disabled_node_is_not_healthy_and_enable_reverts_that(nodes: Nodes, path: Path) -> None:
    assert nodes.disable("sa-node-1").values["healthy"] == 0
    assert not routed(path)["sa-node-1"].healthy
    nodes.remove("sa-node-1")
    node = nodes.enable("sa-node-1")
    assert (node.values["healthy"], node.values["deleted"]) == (1, 0)


def test_weight_and_limits_are_set_and_nothing_else(nodes: Nodes, path: Path) -> None:
    before = raw(path)
    assert nodes.set_weight("sa-node-1", 3).values["weight"] == 3
    node = nodes.set_limits("sa-node-1", 200, 500)
    assert (node.values["soft_limit"], node.values["hard_limit"]) == (200, 500)
    assert raw(path) == [(*before[0][:6], 3, 200, 500, 0), *before[1:]]


@pytest.mark.parametrize("weight", [-5, 1001, "3", 2.5, None, True])
def test_a_weight_that_is_not_allowed_changes_nothing(
    nodes: Nodes, path: Path, weight: object
) -> None:
    before = path.read_bytes()
    with pytest.raises(RowError, match=r"weight .* is not allowed: .*0 to 1000"):
        nodes.set_weight("sa-node-1", weight)
    assert path.read_bytes() == before


@pytest.mark.parametrize("limits", [(-1, 5), (5, -1), (10, 5), ("a", 5), (5, None)])
def test_limits_that_are_not_allowed_change_nothing(
    nodes: Nodes, path: Path, limits: tuple[object, object]
) -> None:
    before = path.read_bytes()
    with pytest.raises(RowError, match=r"_limit .* is not allowed: "):
        nodes.set_limits("sa-node-1", *limits)
    assert path.read_bytes() == before


EDITS: dict[str, Callable[[Nodes, str], Node]] = {
    "remove": Nodes.remove,
    "delete": Nodes.delete,
    "enable": Nodes.enable,
    "disable": Nodes.disable,
    "weight": lambda nodes, name: nodes.set_weight(name, 9),
    "limits": lambda nodes, name: nodes.set_limits(name, 1, 2),
}


@pytest.fixture(params=EDITS)
def edit(request: pytest.FixtureRequest) -> Callable[[Nodes, str], Node]:
    return EDITS[request.param]


def test_an_unknown_id_is_named_with_what_was_probably_meant(
    nodes: Nodes, path: Path, edit: Callable[[Nodes, str], Node]
) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        edit(nodes, "sa-node-11")
    assert str(error.value).startswith(f"no node 'sa-node-11' in {path}: did you mean 'sa-node-1'")
    assert str(error.value).endswith("`edgeproxy db show` lists all")
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["x' OR '1'='1", "", "%", "sa-node-1\x00", "\udcff", "z" * 10_000])
def test_no_id_is_anything_but_an_id(
    nodes: Nodes, path: Path, edit: Callable[[Nodes, str], Node], name: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        edit(nodes, name)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600
    assert path.read_bytes() == before


def test_an_edit_of_a_missing_database_does_not_make_one(
    tmp_path: Path, edit: Callable[[Nodes, str], Node]
) -> None:
    path = tmp_path / "missing.db"
    with pytest.raises(StoreError, match="does not exist: run `edgeproxy db init --db "):
        edit(Nodes(path), "sa-node-1")
    assert not path.exists()


def test_an_edit_of_a_locked_database_changes_nothing(
    path: Path, edit: Callable[[Nodes, str], Node]
) -> None:
    before = raw(path)
    with (
        locked(path),
        pytest.raises(StoreError, match="is locked by another program: nothing was changed, try"),
    ):
        edit(Nodes(path, wait_secs=0.05), "sa-node-1")
    assert raw(path) == before


def test_an_edit_of_a_database_without_the_table_says_so(
    tmp_path: Path, edit: Callable[[Nodes, str], Node]
) -> None:
    path = tmp_path / "empty.db"
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="has no table `backends`"):
        edit(Nodes(path), "sa-node-1")
    assert path.read_bytes() == b""


def test_an_edit_waits_for_a_short_lock(nodes: Nodes, path: Path) -> None:
    with locked(path) as process:
        timer = threading.Timer(0.2, release, [process])
        timer.start()
        nodes.set_weight("sa-node-1", 9)
        timer.join()
    assert routed(path)["sa-node-1"].weight == 9


def test_edits_at_the_same_time_all_happen(path: Path) -> None:
    def add(number: int) -> None:
        Nodes(path, wait_secs=60).add(Backend(f"n-{number}", "myapp", "sa", "10.0.0.1", 80))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"n-{number}" for number in range(10)} <= set(routed(path))


def test_all_rows_are_listed_also_faulty_ones_with_what_is_wrong(nodes: Nodes, path: Path) -> None:
    execute(
        path, "INSERT INTO backends VALUES ('bad', 'a', 'sa', '10.0.0.1', 70000, 1, 1, 1, 1, 1)"
    )
    listed = nodes.read()
    assert [node.values["id"] for node in listed] == ["sa-node-1", "us-node-1", "eu-node-1", "bad"]
    assert [node.fault for node in listed[2:]] == [None, "port 70000 is not allowed: 1 to 65535"]
    assert list(listed[0].values) == list(COLUMNS)


def test_a_faulty_row_can_be_edited_and_deleted(nodes: Nodes, path: Path) -> None:
    execute(path, "INSERT INTO backends (id, port) VALUES ('a\nb', 70000)")
    assert nodes.set_weight("a\nb", 3).fault is not None
    nodes.delete("a\nb")
    assert len(raw(path)) == 3


def test_edits_work_with_a_write_ahead_log(nodes: Nodes, path: Path) -> None:
    execute(path, "PRAGMA journal_mode = WAL")
    nodes.add(NEW)
    nodes.set_weight("sa-node-2", 7)
    assert routed(path)["sa-node-2"].weight == 7
