"""Who is let into a cluster, and what a POP says that cannot join one."""

from __future__ import annotations

import socket
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from edgeproxy.cluster.builtin.keys import new_key
from tests.cluster_pops import GOSSIP_PORT, QUICK, Cluster, ClusterPop
from tests.system.proxy import run_edgeproxy
from tests.underlay import need_underlay
from tests.waiting import wait_until

pytestmark = pytest.mark.system

STRANGE = {
    "key": {"EDGEPROXY_REPLICATION_KEYS": new_key().reveal()},
    "name": {"EDGEPROXY_REPLICATION_CLUSTER_NAME": "another"},
}


@pytest.mark.parametrize("what", STRANGE)
def test_who_has_another_key_or_name_is_a_stranger(
    cluster: Cluster, tmp_path: Path, what: str
) -> None:
    before = cluster.wait_until_equal()
    dropped_before = {pop.name: dropped(pop) for pop in cluster}
    with closing(cluster.newcomer("stranger", tmp_path / "stranger", **STRANGE[what])) as stranger:
        stranger.create()
        stranger.add(f"stranger-{what}")
        stranger.start()
        for pop in cluster:
            wait_until(lambda: dropped(pop) > dropped_before[pop.name], "noticed")  # noqa: B023
        stranger.proxy.wait_for("replication")
        status = stranger.status()
        assert status is not None
        assert (status["ready"], status["members"]) == (False, [])
        assert stranger.rows().keys() == {f"stranger-{what}"}
        cluster["a"].add(f"between-members-{what}")
        rows = cluster.wait_until_equal()
    assert rows.keys() == {*before, f"between-members-{what}"}
    assert all("stranger" not in pop.members() for pop in cluster)


def dropped(pop: ClusterPop) -> int:
    """Return how many datagrams of strangers a POP has noticed."""
    status = pop.status()
    return sum(status["gossip_dropped"].values()) if status else 0


def test_without_a_key_it_does_not_start_where_others_reach_it(tmp_path: Path) -> None:
    done = run_edgeproxy(
        "serve",
        folder=tmp_path,
        EDGEPROXY_LISTEN_ADDR="127.0.0.1:0",
        EDGEPROXY_REPLICATION_ENABLED="true",
    )
    assert done.returncode == 2
    assert "without a key anybody who reaches it could change" in done.stderr
    assert "edgeproxy cluster keygen" in done.stderr


def test_an_address_in_use_is_named_and_taken_once_it_is_free(tmp_path: Path) -> None:
    need_underlay()
    with Cluster(tmp_path, ["a", "b"], more=QUICK) as cluster:
        a, b = cluster
        address = (cluster.underlay.address("a"), GOSSIP_PORT)
        with a.host.run(partial(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)) as taken:
            taken.bind(address)
            a.create()
            a.add("x")
            a.start()
            b.start()
            a.wait_for(x=1)
            reason = a.proxy.wait_for("agent_failed")["reason"]
            assert f"cannot listen on {address[0]}:{address[1]} (UDP)" in reason
            assert "another process uses it" in reason
        b.wait_for(x=1)


def test_a_peer_that_cannot_be_looked_up_is_named_and_others_serve(tmp_path: Path) -> None:
    need_underlay()
    with Cluster(tmp_path, ["a", "b"], more=QUICK) as cluster:
        a, b = cluster
        a.variables["EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS"] = "nowhere.invalid"
        b.variables["EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS"] += ",nowhere.invalid"
        cluster.start()
        b.add("x")
        a.wait_for(x=1)
        for pop in (a, b):
            wait_until(lambda: "nowhere.invalid" in warnings(pop), "a warning")  # noqa: B023


def warnings(pop: ClusterPop) -> str:
    status = pop.status()
    return "\n".join(status["warnings"]) if status else ""


def test_two_pops_of_one_name_lose_nothing_and_say_so(cluster: Cluster, tmp_path: Path) -> None:
    a, b, c = cluster
    a.add("before-the-double")
    cluster.wait_until_equal()
    with closing(cluster.newcomer("a", tmp_path / "double")) as double:
        double.start()
        wait_until(
            lambda: (
                a.proxy.seen("member_duplicate_node_id")
                or double.proxy.seen("member_duplicate_node_id")
            ),
            "one of them says so",
        )
        a.add("at-one")
        double.add("at-other")
        b.add("at-b")
        c.wait_for(**{"at-b": 1, "before-the-double": 1})
    a.crash()
    a.start()
    cluster.wait_until_connected()
    rows = cluster.wait_until_equal()
    assert rows.keys() >= {"before-the-double", "at-one", "at-b"}
