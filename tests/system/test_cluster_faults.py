"""POPs that share a routing table lose nothing, whatever dies, stops, or is deleted by accident."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.cluster_pops import QUICK, Cluster, ClusterPop, other_clock
from tests.cluster_storm import Clients, Editor
from tests.underlay import need_underlay
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

STOPPED_SECS = 15.0

Accident = Callable[[ClusterPop], None]


def test_a_writer_that_is_killed_after_the_acknowledgement_has_lost_nothing(
    cluster: Cluster,
) -> None:
    a, b, c = cluster
    a.add("acknowledged")
    a.crash()
    a.start()
    for pop in (a, b, c):
        pop.wait_for(acknowledged=1)


def test_a_crash_is_known_everywhere_and_what_was_missed_comes_afterwards(
    cluster: Cluster,
) -> None:
    a, b, c = cluster
    c.add("at-c-alone")
    cluster.wait_until_equal()
    c.crash()
    for pop in (a, b):
        pop.proxy.wait_for("member_dead", node="c")
        assert pop.members()["c"]["state"] == "dead"
    a.add("missed")
    b.edit("DELETE FROM backends WHERE id = 'at-c-alone';")
    c.start()
    c.wait_for(**{"missed": 1, "at-c-alone": None})


def test_a_state_that_is_deleted_under_its_agent_comes_back(cluster: Cluster) -> None:
    a, b, _ = cluster
    a.add("before")
    cluster.wait_until_equal()
    (b.folder / "state.db").unlink()
    b.proxy.wait_for("replication_file_lost")
    a.add("after")
    cluster.wait_until_equal()
    b.wait_for(after=1)


def test_agents_that_are_killed_in_a_storm_lose_nothing_and_refuse_nobody(
    cluster: Cluster,
) -> None:
    a, b, c = cluster
    with closing(cluster.backend_at("a")) as backend, ExitStack() as stack:
        a.add(backend.id, wg_ip=backend.host, port=backend.port)
        for pop in cluster:
            pop.wait_for(**{backend.id: 1})
        clients = [stack.enter_context(Clients(pop)) for pop in cluster]
        editors = [stack.enter_context(Editor(pop, f"storm-{pop.name}")) for pop in (a, b)]
        for victim in (a, b, c, a):
            victim.kill_agent()
            editors[0].wait_for_more(10)
            editors[1].wait_for_more(10)
        for each in clients:
            each.wait_for_more(5)
        stack.close()
        assert [fault for each in clients for fault in each.faults] == []
        cluster.wait_until_connected()
        rows = cluster.wait_until_equal()
        assert set().union(*(editor.ids for editor in editors)) <= rows.keys()
        a.edit(f"DELETE FROM backends WHERE id = '{backend.id}';")
        c.wait_for(**{backend.id: None})


def test_a_pop_that_stood_still_accuses_nobody(cluster: Cluster) -> None:
    a, b, c = cluster
    began = {pop.name: len(pop.proxy.events) for pop in cluster}
    c.pause()
    a.add("meanwhile")
    b.wait_for(meanwhile=1)
    PAUSE.wait(STOPPED_SECS)  # it is the time itself that is tested
    c.resume()
    c.wait_for(meanwhile=1)
    cluster.wait_until_connected()
    for pop in cluster:
        accused = {
            line["node"] for line in pop.proxy.events[began[pop.name] :] if is_accusation(line)
        }
        assert accused <= {"c"}, pop.proxy.told()
    assert not any(is_accusation(line) for line in c.proxy.events[began["c"] :]), c.proxy.told()


def test_a_pop_whose_clock_is_wrong_neither_wins_for_ever_nor_loses(
    cluster: Cluster, tmp_path: Path
) -> None:
    a, _, c = cluster
    wrong = cluster.newcomer("wrong", tmp_path / "wrong", **other_clock(600))
    with closing(wrong):
        wrong.start()
        wait_until(lambda: wrong.connected() == {"a", "b", "c"}, "connections")
        a.add("by-clock")
        wrong.wait_for(**{"by-clock": 1})
        for weight, pop in ((2, wrong), (3, a), (4, wrong), (5, c)):
            pop.set_weight("by-clock", weight)
            for each in (*cluster, wrong):
                each.wait_for(**{"by-clock": weight})
        wait_until(lambda: "clock" in str((wrong.status() or {}).get("warnings")), "a warning")


def is_accusation(line: dict[str, object]) -> bool:
    return line["event"] in {"member_dead", "member_suspected"}


def test_a_state_that_is_damaged_comes_back_from_the_others(cluster: Cluster) -> None:
    a, _, c = cluster
    c.add("before-the-damage")
    before = cluster.wait_until_equal()
    c.stop()
    c.state.with_name("state.db-wal").unlink(missing_ok=True)
    size = c.state.stat().st_size
    c.state.write_bytes(os.urandom(size))
    a.set_weight("before-the-damage", 5)
    c.start()
    c.proxy.wait_for("replication_state_damaged")
    c.wait_for(**{"before-the-damage": 5})
    c.add("after-the-damage")
    a.wait_for(**{"after-the-damage": 1})
    assert cluster.wait_until_equal().keys() == {*before, "after-the-damage"}
    assert c.state.with_name("state.db.damaged").stat().st_size == size


def removed(pop: ClusterPop) -> None:
    pop.database.unlink()


def made_anew(pop: ClusterPop) -> None:
    done = pop.run("db", "init", "--force")
    assert done.returncode == 0, done.stderr


def emptied(pop: ClusterPop) -> None:
    pop.edit("DELETE FROM backends;")


def dropped(pop: ClusterPop) -> None:
    pop.edit("DROP TABLE backends;")


@pytest.mark.parametrize("accident", [removed, made_anew, emptied, dropped])
def test_an_accident_with_the_table_at_one_pop_deletes_nothing(
    cluster: Cluster, accident: Accident
) -> None:
    a, b, c = cluster
    name = accident.__name__
    a.add(*(f"{name}-{number}" for number in range(20)))
    before = cluster.wait_until_equal()
    accident(b)
    wait_until(lambda: rows_or_none(b) == before, "the table is restored")
    b.add(f"after-{name}")  # comes to others after whatever the accident has caused
    c.wait_for(**{f"after-{name}": 1})
    assert cluster.wait_until_equal().keys() == {*before, f"after-{name}"}


def rows_or_none(pop: ClusterPop) -> object:
    try:
        return pop.rows()
    except Exception:  # noqa: BLE001 — there is no table now
        return None


@contextmanager
def small_disk(at: Path, options: str = "size=1m") -> Iterator[None]:
    """A file system of its own at a folder, which is made."""
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def test_a_pop_whose_disk_is_full_routes_and_catches_up(cluster: Cluster, tmp_path: Path) -> None:
    a, b, _ = cluster
    with small_disk(tmp_path / "disk"):
        state = tmp_path / "disk" / "state.db"
        d = cluster.newcomer("d", tmp_path / "d", EDGEPROXY_REPLICATION_DB_PATH=str(state))
        d.state = state
        with closing(d):
            d.start()
            wait_until(lambda: d.connected() == {"a", "b", "c"}, "connections")
            cluster.wait_until_equal(a, d)
            ballast = tmp_path / "disk" / "ballast"
            fill(ballast)
            for number in range(100):
                b.add(*(f"many-{number}-{each}" for each in range(20)))
            a.wait_for(**{"many-99-19": 1})
            d.add("edited-there")
            said = re.compile("is full|cannot grow|No space left")
            wait_until(lambda: said.search(d.proxy.told()), "it says so")
            wait_until(lambda: d.weights().get("edited-there") == 1, "in force there")
            ballast.unlink()
            subprocess.run(["mount", "-o", "remount,size=50m", str(tmp_path / "disk")], check=True)
            a.wait_for(**{"edited-there": 1})
            cluster.wait_until_equal(a, b, d)


def fill(ballast: Path) -> None:
    """Leave no byte free."""
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_a_pop_whose_disk_is_read_only_says_so_and_routes(tmp_path: Path) -> None:
    need_underlay()
    with (
        small_disk(tmp_path / "disk", "ro"),
        Cluster(tmp_path, ["a"], more=QUICK) as cluster,
    ):
        a = cluster["a"]
        a.variables["EDGEPROXY_REPLICATION_DB_PATH"] = str(tmp_path / "disk" / "state.db")
        a.create()
        a.add("x")
        a.begin()
        wait_until(lambda: "Read-only" in a.proxy.told(), "it says so")
        assert a.proxy.is_running(), a.proxy.told()
