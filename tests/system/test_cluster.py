"""POPs that share a routing table: what is edited at one is in force at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.cluster.builtin.keys import new_key
from tests.cluster_pops import QUICK, Cluster, ClusterPop
from tests.cluster_storm import Clients, Editor
from tests.underlay import need_underlay
from tests.waiting import wait_until

pytestmark = pytest.mark.system

Edit = Callable[[ClusterPop], object]


def by_sqlite(pop: ClusterPop) -> None:
    pop.add("by-sqlite", weight=7)


def by_command(pop: ClusterPop) -> None:
    done = pop.run("node", "add", "by-command", "sa", "10.50.1.1", "80", "7")
    assert done.returncode == 0, done.stderr


def by_api(pop: ClusterPop) -> None:
    assert register(pop, "by-api", "127.0.0.1", 9, weight=7) == 201


def register(pop: ClusterPop, backend_id: str, ip: str, port: int, weight: int = 1) -> int:
    body = {"id": backend_id, "app": "myapp", "region": "sa", "ip": ip, "port": port}
    return pop.ask_api("POST", "/api/v1/register", {**body, "weight": weight})[0]


@pytest.mark.parametrize("edit", [by_sqlite, by_command, by_api])
def test_what_is_edited_at_one_pop_is_in_force_at_all(cluster: Cluster, edit: Edit) -> None:
    edit(cluster["b"])
    for pop in cluster:
        pop.wait_for(**{edit.__name__.replace("_", "-"): 7})


def test_a_change_and_a_delete_are_in_force_at_all(cluster: Cluster) -> None:
    cluster["a"].add("changed", "deleted")
    cluster.wait_until_equal()
    cluster["b"].set_weight("changed", 9)
    cluster["c"].edit("DELETE FROM backends WHERE id = 'deleted';")
    for pop in cluster:
        pop.wait_for(changed=9, deleted=None)


def test_every_pop_says_who_is_in_the_cluster(cluster: Cluster) -> None:
    done = cluster["a"].run("cluster", "status")
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["b", "alive", "us"] in rows
    assert ["c", "alive", "eu"] in rows


def test_a_backend_that_registers_at_one_pop_is_served_by_all(cluster: Cluster) -> None:
    with closing(cluster.backend_at("a")) as backend:
        assert register(cluster["a"], backend.id, backend.host, backend.port) == 201
        for pop in cluster:
            only(pop, backend.id)
            wait_until(lambda: pop.reached() == backend.id, f"served by {pop.name}")  # noqa: B023
        assert cluster["a"].ask_api("DELETE", f"/api/v1/backends/{backend.id}")[0] < 300


def only(pop: ClusterPop, backend_id: str) -> None:
    """Wait until a POP has a backend in force."""
    pop.wait_for(**{backend_id: 1})


def test_a_backend_that_moves_outlives_its_lease_at_the_pop_it_has_left(
    cluster: Cluster,
) -> None:
    a, b, c = cluster
    assert register(a, "moves", "127.0.0.1", 9) == 201
    c.wait_for(moves=1)
    assert register(b, "moves", "127.0.0.1", 9, weight=2) in {200, 201}

    def has_left_a() -> bool:
        assert b.ask_api("POST", "/api/v1/heartbeat/moves")[0] == 200
        return homes(c) == {"b"}

    wait_until(has_left_a, "the lease at a has ended")
    for pop in cluster:
        wait_until(lambda: homes(pop) == {"b"}, f"the same at {pop.name}")  # noqa: B023
        assert pop.weights()["moves"] == 2, pop.name


def homes(pop: ClusterPop) -> set[str]:
    """Return where the backend that moves has a live lease, as this POP knows."""
    sql = "SELECT home FROM edgeproxy_leases WHERE id = 'moves' AND ended_at IS NULL"
    with closing(sqlite3.connect(pop.database, timeout=10)) as connection:
        return {home for (home,) in connection.execute(sql)}


def test_both_sides_of_a_partition_edit_and_agree_after_it(cluster: Cluster) -> None:
    a, b, c = cluster
    a.add("gone", "both", "contested", "untouched")
    cluster.wait_until_equal()
    cluster.underlay.partition(["a"], ["b", "c"])
    a.edit("DELETE FROM backends WHERE id = 'gone';")
    a.set_weight("both", 5)
    a.set_weight("contested", 6)
    a.add("from-a")
    b.edit("UPDATE backends SET port = 5555 WHERE id = 'both';")
    b.edit("DELETE FROM backends WHERE id = 'contested';")
    c.add("from-c")
    b.wait_for(**{"from-c": 1, "both": 1, "gone": 1, "contested": None})
    a.wait_for(**{"from-a": 1, "both": 5, "gone": None, "from-c": None})
    cluster.underlay.heal()
    for pop in cluster:
        pop.wait_for(**{"from-a": 1, "from-c": 1, "gone": None, "both": 5, "untouched": 1})
    rows = cluster.wait_until_equal()
    assert rows["both"][4] == 5555


def test_a_pop_with_a_table_of_its_own_joins(cluster: Cluster, tmp_path: Path) -> None:
    before = cluster["a"].rows()
    some = next(iter(before))
    with closing(cluster.newcomer("d", tmp_path / "d")) as d:
        d.create()
        d.add("only-here", some, weight=99)
        d.start()
        rows = cluster.wait_until_equal("a", "b", "c", d)
    assert rows == before | {"only-here": rows["only-here"]}


def test_keys_are_replaced_without_a_gap(tmp_path: Path) -> None:
    need_underlay()
    old, new = new_key().reveal(), new_key().reveal()
    with Cluster(tmp_path, ["a", "b"], more=QUICK) as cluster:
        for pop in cluster:
            del pop.variables["EDGEPROXY_REPLICATION_KEYS"]
            pop.variables["EDGEPROXY_REPLICATION_KEY_FILE"] = "keys"
            (pop.folder / "keys").write_text(f"{old}\n")
        cluster.start()
        with Editor(cluster["a"], "a"), Editor(cluster["b"], "b"):
            for number, keys in enumerate(([old, new], [new, old], [new])):
                for pop in cluster:
                    replacing = pop.folder / "keys.new"
                    replacing.write_text("\n".join(keys))
                    replacing.replace(pop.folder / "keys")
                    pop.proxy.wait_for("cluster_keys_changed", number + 1)
        cluster.wait_until_equal()
        for pop in cluster:
            assert not pop.proxy.seen("member_suspected"), pop.proxy.told()
            (member,) = pop.members().values()
            status = pop.status()
            assert status is not None
            assert status["keys"] == [f"{member['key']} (used)"]


def test_a_pop_is_upgraded_while_edits_go_on(cluster: Cluster) -> None:
    a, b, _ = cluster
    with closing(cluster.backend_at("c")) as backend:
        a.add(backend.id, wg_ip=backend.host, port=backend.port)
        only(b, backend.id)
        with Clients(b) as clients, Editor(a, "during") as editor:
            b.upgrade()
            editor.wait_for_more(10)
            clients.wait_for_more(10)
        assert clients.faults == []
        cluster.wait_until_connected()
        rows = cluster.wait_until_equal()
        assert editor.ids <= rows.keys()
        b.wait_for(**dict.fromkeys(editor.ids, 1))
        a.edit(f"DELETE FROM backends WHERE id = '{backend.id}';")


def test_addresses_may_be_ipv6(tmp_path: Path) -> None:
    need_underlay()
    with Cluster(tmp_path, ["a", "b"], is_ipv6=True, more=QUICK) as cluster:
        cluster.start()
        cluster["a"].add("x")
        cluster["b"].wait_for(x=1)
