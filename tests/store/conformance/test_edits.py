"""Edits of a routing database: each does one thing whole, or changes nothing and says why."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Sequence

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.rows import COLUMNS, RowError
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import Node, NodeEdits, UnknownNodeError
from tests.store.conformance.kinds import Kind

NEW = Backend("sa-node-2", "myapp", "sa", "10.50.1.2", 8080)
ROW = ("sa-node-2", "myapp", "sa", "10.50.1.2", 8080, 1, 1, 100, 200, 0)


def routed(kind: Kind) -> dict[str, Backend]:
    return {each.id: each for each in kind.store().read().backends}


def test_an_added_node_is_in_the_table_as_documented(kind: Kind) -> None:
    node = kind.nodes().add(NEW)
    assert tuple(node.values.values())[:10] == ROW
    assert list(node.values)[:10] == list(COLUMNS)
    assert node.fault is None
    assert ROW in kind.rows()
    assert routed(kind)["sa-node-2"] == NEW


def test_an_id_is_added_only_once(kind: Kind) -> None:
    before = kind.rows()
    with pytest.raises(StoreError, match="node 'sa-node-1' exists already: change it with"):
        kind.nodes().add(Backend("sa-node-1", "other", "us", "10.50.9.9", 1))
    assert kind.rows() == before


def test_adding_a_removed_id_tells_how_to_restore_it(kind: Kind) -> None:
    kind.nodes().remove("sa-node-1")
    before = kind.rows()
    with pytest.raises(StoreError, match="exists but is removed: `edgeproxy node enable` restores"):
        kind.nodes().add(Backend("sa-node-1", "myapp", "sa", "10.50.9.9", 1))
    assert kind.rows() == before


def test_an_id_is_added_only_once_even_without_a_primary_key(empty: Kind) -> None:
    empty.execute(
        "CREATE TABLE backends (id TEXT, app TEXT, region TEXT, wg_ip TEXT, port INTEGER, "
        "healthy INTEGER, weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, "
        "deleted INTEGER);"
    )
    failed: list[StoreError] = []

    def add() -> None:
        try:
            empty.nodes().add(NEW)
        except StoreError as error:
            failed.append(error)

    threads = [threading.Thread(target=add) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("exists already" in str(each) for each in failed)
    assert len(failed) == 4
    assert len(empty.rows()) == 1


def test_columns_of_others_keep_their_defaults_and_a_country_is_kept(kind: Kind) -> None:
    kind.execute("ALTER TABLE backends ADD COLUMN note TEXT DEFAULT 'by hand'")
    if not kind.has_country:
        kind.execute("ALTER TABLE backends ADD COLUMN country TEXT")
    brazilian = Backend("br-1", "myapp", "sa", "10.50.1.3", 8080, country="BR")
    assert kind.nodes().add(brazilian).values["country"] == "BR"
    assert not kind.nodes().add(NEW).values["country"]
    assert routed(kind)["br-1"] == brazilian


def test_a_column_that_somebody_requires_is_an_error_and_no_crash(empty: Kind) -> None:
    empty.store().ensure()
    empty.execute(
        "ALTER TABLE backends ADD COLUMN owner TEXT NOT NULL CHECK (owner <> '') DEFAULT ''"
    )
    with pytest.raises(StoreError, match="constraint"):
        empty.nodes().add(NEW)
    assert empty.rows() == []


def test_a_removed_node_stays_in_the_table_and_enable_restores_it(kind: Kind) -> None:
    before = kind.rows()
    assert kind.nodes().remove("us-node-1").values["deleted"] == 1
    assert routed(kind)["us-node-1"].deleted
    assert kind.nodes().enable("us-node-1").values["deleted"] == 0
    assert kind.rows() == before


def test_a_deleted_node_is_gone_and_its_id_is_free(kind: Kind) -> None:
    assert kind.nodes().delete("us-node-1").values["wg_ip"] == "10.50.2.1"
    assert [row[0] for row in kind.rows()] == ["eu-node-1", "sa-node-1"]
    kind.nodes().add(Backend("us-node-1", "myapp", "us", "10.50.2.9", 8080))
    assert routed(kind)["us-node-1"].wg_ip == "10.50.2.9"


def test_a_disabled_node_is_not_healthy_and_enable_reverts_that(kind: Kind) -> None:
    nodes = kind.nodes()
    assert nodes.disable("sa-node-1").values["healthy"] == 0
    assert not routed(kind)["sa-node-1"].healthy
    nodes.remove("sa-node-1")
    node = nodes.enable("sa-node-1")
    assert (node.values["healthy"], node.values["deleted"]) == (1, 0)


def test_weight_and_limits_are_set_and_nothing_else(kind: Kind) -> None:
    before = kind.rows()
    nodes = kind.nodes()
    assert nodes.set_weight("sa-node-1", 3).values["weight"] == 3
    node = nodes.set_limits("sa-node-1", 200, 500)
    assert (node.values["soft_limit"], node.values["hard_limit"]) == (200, 500)
    eu, sa, us = before
    assert kind.rows() == [eu, (*sa[:6], 3, 200, 500, 0), us]


@pytest.mark.parametrize("weight", [-5, 1001, "3", 2.5, None, True])
def test_a_weight_that_is_not_allowed_changes_nothing(kind: Kind, weight: object) -> None:
    before = kind.rows()
    with pytest.raises(RowError, match=r"weight .* is not allowed: .*0 to 1000"):
        kind.nodes().set_weight("sa-node-1", weight)
    assert kind.rows() == before


@pytest.mark.parametrize("limits", [(-1, 5), (10, 5), ("a", 5), (5, None)])
def test_limits_that_are_not_allowed_change_nothing(
    kind: Kind, limits: tuple[object, object]
) -> None:
    before = kind.rows()
    with pytest.raises(RowError, match=r"_limit .* is not allowed: "):
        kind.nodes().set_limits("sa-node-1", *limits)
    assert kind.rows() == before


def test_any_field_is_set_and_nothing_else(kind: Kind) -> None:
    eu, sa, us = kind.rows()
    nodes = kind.nodes()
    node = nodes.set("sa-node-1", {"app": "shop", "wg_ip": "fd00:0::1", "port": 81})
    assert (node.values["app"], node.values["wg_ip"]) == ("shop", "fd00::1")
    nodes.set("sa-node-1", {"region": "mars", "weight": 7})
    assert kind.rows() == [eu, (sa[0], "shop", "mars", "fd00::1", 81, sa[5], 7, *sa[7:]), us]
    assert nodes.get("sa-node-1").values["region"] == "mars"


def test_a_limit_is_checked_with_the_one_that_stays(kind: Kind) -> None:
    nodes = kind.nodes()
    nodes.set_limits("sa-node-1", 50, 100)
    before = kind.rows()
    for limit in ({"soft_limit": 101}, {"hard_limit": 49}):
        with pytest.raises(RowError, match="at most the hard_limit"):
            nodes.set("sa-node-1", limit)
    assert kind.rows() == before
    assert nodes.set("sa-node-1", {"soft_limit": 100}).values["hard_limit"] == 100
    assert nodes.set("sa-node-1", {"hard_limit": 0}).values["soft_limit"] == 100


@pytest.mark.parametrize(
    ("field", "value"),
    [("app", ""), ("region", "SA"), ("wg_ip", "x"), ("port", 0), ("weight", -1), ("country", "B")],
)
def test_a_field_that_is_not_allowed_changes_nothing(kind: Kind, field: str, value: object) -> None:
    before = kind.rows()
    with pytest.raises(RowError, match=f"{field} .* is not allowed: "):
        kind.nodes().set("sa-node-1", {"port": 99, field: value})
    assert kind.rows() == before


EDITS: dict[str, Callable[[NodeEdits, str], Node]] = {
    "remove": lambda nodes, name: nodes.remove(name),
    "delete": lambda nodes, name: nodes.delete(name),
    "enable": lambda nodes, name: nodes.enable(name),
    "disable": lambda nodes, name: nodes.disable(name),
    "weight": lambda nodes, name: nodes.set_weight(name, 9),
    "limits": lambda nodes, name: nodes.set_limits(name, 1, 2),
    "set": lambda nodes, name: nodes.set(name, {"soft_limit": 1, "port": 9}),
    "get": lambda nodes, name: nodes.get(name),
}


@pytest.fixture(params=EDITS)
def edit(request: pytest.FixtureRequest) -> Callable[[NodeEdits, str], Node]:
    return EDITS[request.param]


def test_an_unknown_id_is_named_with_what_was_probably_meant(
    kind: Kind, edit: Callable[[NodeEdits, str], Node]
) -> None:
    before = kind.rows()
    nodes = kind.nodes()
    with pytest.raises(StoreError) as error:
        edit(nodes, "sa-node-11")
    said = str(error.value)
    assert said.startswith(f"no node 'sa-node-11' in {nodes.path}: did you mean 'sa-node-1'")
    assert said.endswith("`edgeproxy db show` lists all")
    assert kind.rows() == before


def test_what_was_probably_meant_is_looked_for_only_when_it_is_told(
    kind: Kind, edit: Callable[[NodeEdits, str], Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes seconds with many long ids, and the API shows no other ids to who asks for one."""
    looked: list[str] = []

    class Watched(difflib.SequenceMatcher[str]):
        def set_seq2(self, b: Sequence[str]) -> None:
            looked.append("".join(b))
            super().set_seq2(b)

    monkeypatch.setattr(difflib, "SequenceMatcher", Watched)
    with pytest.raises(UnknownNodeError) as error:
        edit(kind.nodes(), "sa-node-11")
    assert "sa-node-11" not in looked
    assert "did you mean" in str(error.value)
    assert "sa-node-11" in looked


@pytest.mark.parametrize("name", ["x' OR '1'='1", "", "%", "sa-node-1\x00", "\udcff", "z" * 10_000])
def test_no_id_is_anything_but_an_id(kind: Kind, name: str) -> None:
    before = kind.rows()
    nodes = kind.nodes()
    for edit in EDITS.values():
        with pytest.raises(StoreError) as error:
            edit(nodes, name)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 600
    assert kind.rows() == before


def test_an_edit_of_a_database_without_the_table_says_so(
    empty: Kind, edit: Callable[[NodeEdits, str], Node]
) -> None:
    empty.execute("CREATE TABLE notes (text TEXT)")
    with pytest.raises(StoreError, match="has no table `backends`"):
        edit(empty.nodes(), "sa-node-1")


def test_edits_at_the_same_time_all_happen(kind: Kind) -> None:
    def add(number: int) -> None:
        kind.nodes().add(Backend(f"n-{number}", "myapp", "sa", "10.0.0.1", 80))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"n-{number}" for number in range(10)} <= set(routed(kind))


def test_all_rows_are_listed_also_faulty_ones_with_what_is_wrong(kind: Kind) -> None:
    kind.insert("bad", port=70000, deleted=1)
    listed = {str(node.values["id"]): node for node in kind.nodes().read()}
    assert set(listed) == {"sa-node-1", "us-node-1", "eu-node-1", "bad"}
    assert listed["eu-node-1"].fault is None
    assert listed["bad"].fault == "port 70000 is not allowed: 1 to 65535"
    assert list(listed["bad"].values)[:10] == list(COLUMNS)


def test_a_faulty_row_can_be_edited_and_deleted(kind: Kind) -> None:
    kind.insert("a\nb", port=70000)
    nodes = kind.nodes()
    assert nodes.set_weight("a\nb", 3).fault is not None
    nodes.delete("a\nb")
    assert len(kind.rows()) == 3
