"""Reading a routing database, and noticing that it changed."""

from __future__ import annotations

import threading

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.errors import StoreError
from edgeproxy.store.feed import Store
from edgeproxy.store.snapshot import SkippedRow
from tests.store.conformance.kinds import Kind

THREE = {
    "sa-node-1": Backend("sa-node-1", "myapp", "sa", "10.50.1.1", 8080, True, 2, 50, 100),
    "us-node-1": Backend("us-node-1", "myapp", "us", "10.50.2.1", 8080, True, 2, 50, 100),
    "eu-node-1": Backend("eu-node-1", "myapp", "eu", "10.50.3.1", 8080, True, 2, 50, 100),
}
SET_WEIGHT = "UPDATE backends SET weight = {} WHERE id = 'sa-node-1';"
ROUTES = "CREATE TABLE IF NOT EXISTS edgeproxy_routes (pattern TEXT PRIMARY KEY, app TEXT);"


def read(store: Store) -> dict[str, Backend]:
    return {each.id: each for each in store.read().backends}


def test_what_is_missing_is_made_once_and_is_empty(empty: Kind) -> None:
    store = empty.store()
    assert store.ensure()
    assert not store.ensure()
    assert not empty.store().ensure()
    snapshot = store.read()
    assert (snapshot.backends, snapshot.skipped, snapshot.routes) == ((), (), {})


def test_what_is_there_is_left_alone(kind: Kind) -> None:
    before = kind.rows()
    assert not kind.store().ensure()
    assert kind.rows() == before


def test_the_documented_rows_are_read(kind: Kind) -> None:
    snapshot = kind.store().read()
    assert {each.id: each for each in snapshot.backends} == THREE
    assert snapshot.skipped == ()


def test_the_order_of_a_table_stays(kind: Kind) -> None:
    first = [each.id for each in kind.store().read().backends]
    kind.execute(SET_WEIGHT.format(5))
    assert [each.id for each in kind.store().read().backends] == first


def test_faulty_rows_are_skipped_and_named_and_the_others_are_read(kind: Kind) -> None:
    kind.insert("big-port", port=70000)
    kind.insert("nowhere", wg_ip="10.50.1")
    kind.insert("negative", weight=-1)
    kind.insert("half", healthy=2)
    kind.insert("z" * 5000)
    snapshot = kind.store().read()
    assert {each.id: each for each in snapshot.backends} == THREE
    reasons = {each.id: each.reason for each in snapshot.skipped}
    assert reasons["big-port"] == "port 70000 is not allowed: 1 to 65535"
    assert reasons["negative"] == "weight -1 is not allowed: 0 or more"
    assert reasons["half"] == "healthy 2 is not allowed: 0 or 1"
    assert reasons["nowhere"].startswith("wg_ip '10.50.1' is not allowed")
    assert len(reasons["z" * 128]) < 300


def test_a_country_is_read_and_columns_of_others_are_not(kind: Kind) -> None:
    kind.execute("ALTER TABLE backends ADD COLUMN note TEXT DEFAULT 'x'")
    if not kind.has_country:
        kind.execute("ALTER TABLE backends ADD COLUMN country TEXT")
    kind.execute("UPDATE backends SET country = 'br' WHERE region = 'sa'")
    countries = {each.id: each.country for each in kind.store().read().backends}
    assert countries == {"sa-node-1": "BR", "us-node-1": None, "eu-node-1": None}


def test_nothing_has_changed_until_something_does(kind: Kind) -> None:
    store = kind.store()
    assert store.changed()
    store.read()
    for _ in range(3):
        assert not store.changed()


def test_each_committed_edit_is_noticed_until_it_is_read(kind: Kind) -> None:
    store = kind.store()
    store.read()
    for value in range(5):
        kind.execute(SET_WEIGHT.format(value))
        assert store.changed()
        assert store.changed()
        assert read(store)["sa-node-1"].weight == value
        assert not store.changed()


@pytest.mark.parametrize("sql", ["DELETE FROM backends WHERE id = 'us-node-1'", ""])
def test_rows_that_come_and_go_are_noticed(kind: Kind, sql: str) -> None:
    store = kind.store()
    store.read()
    if sql:
        kind.execute(sql)
    else:
        kind.insert("sa-node-2")
    assert store.changed()
    assert len(read(store)) == (2 if sql else 4)


def test_server_names_are_read_and_followed(kind: Kind) -> None:
    kind.execute(ROUTES)
    store = kind.store()
    assert store.read().routes == {}
    kind.execute("INSERT INTO edgeproxy_routes VALUES ('*.Example.com', 'web')")
    assert store.changed()
    assert store.read().routes == {"*.example.com": "web"}
    kind.execute("INSERT INTO edgeproxy_routes VALUES ('a b', 'web')")
    assert store.changed()
    snapshot = store.read()
    assert snapshot.routes == {"*.example.com": "web"}
    assert [each.id for each in snapshot.skipped] == ["edgeproxy_routes 'a b'"]
    kind.execute("DROP TABLE edgeproxy_routes")
    assert store.changed()
    assert store.read().routes == {}


def test_a_table_that_is_taken_away_is_named_and_read_again_when_it_is_back(kind: Kind) -> None:
    store = kind.store()
    store.read()
    kind.execute("ALTER TABLE backends RENAME TO elsewhere")
    for _ in range(2):
        with pytest.raises(StoreError, match="has no table `backends`"):
            store.changed() and store.read()
    kind.execute("ALTER TABLE elsewhere RENAME TO backends")
    store.changed()  # a store may know that the rows are the same
    assert read(store) == THREE
    assert not store.changed()


def test_missing_columns_are_named(kind: Kind) -> None:
    kind.execute("ALTER TABLE backends RENAME COLUMN soft_limit TO soft")
    with pytest.raises(StoreError, match="has no column soft_limit in its table `backends`"):
        kind.store().read()


def test_of_rows_with_the_same_id_the_first_is_used(empty: Kind) -> None:
    empty.execute(
        "CREATE TABLE backends (id TEXT, app TEXT, region TEXT, wg_ip TEXT, port INTEGER, "
        "healthy INTEGER, weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, "
        "deleted INTEGER, country TEXT);"
    )
    for _ in range(3):
        empty.insert("a")
    snapshot = empty.store().read()
    assert [each.id for each in snapshot.backends] == ["a"]
    assert snapshot.skipped == (SkippedRow("a", "id 'a' is used by an earlier row already"),) * 2


def test_a_store_may_move_between_threads(kind: Kind) -> None:
    store = kind.store()
    store.read()
    kind.execute(SET_WEIGHT.format(9))
    seen: list[object] = []
    thread = threading.Thread(
        target=lambda: seen.extend([store.changed(), read(store)["sa-node-1"].weight])
    )
    thread.start()
    thread.join()
    assert seen == [True, 9]


def test_every_state_that_a_busy_writer_commits_is_read_whole(kind: Kind) -> None:
    def write() -> None:
        for weight in range(20):
            kind.execute(f"UPDATE backends SET weight = {weight}")

    store = kind.store()
    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        if store.changed():
            assert len({each.weight for each in store.read(20).backends}) == 1
    writer.join()
    assert {each.weight for each in store.read().backends} == {19}


def test_a_closed_store_can_be_read_again(kind: Kind) -> None:
    store = kind.store()
    store.read()
    store.close()
    store.close()
    assert store.changed()
    assert read(store) == THREE
