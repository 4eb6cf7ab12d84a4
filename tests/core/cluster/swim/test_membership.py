"""What a cluster of these machines keeps, in virtual time, and what one of them answers."""

from __future__ import annotations

import random

import msgspec
import pytest

from edgeproxy.core.cluster.swim.events import EventKind
from edgeproxy.core.cluster.swim.membership import Membership
from edgeproxy.core.cluster.swim.messages import Ack, Gossip, Page, Ping, PingRequest, Pull
from edgeproxy.core.cluster.swim.records import Address, Record, State
from edgeproxy.core.cluster.swim.tuning import JOIN_MOST, Tuning
from edgeproxy.core.cluster.swim.voice import Send
from tests.core.cluster.swim.simulation import (
    Network,
    Node,
    Simulation,
    address_of,
    record_of,
)

LOSSY = Network(loss=0.3, repeats=0.05)


def dead_by_mistake(simulation: Simulation, *gone: Node) -> list[str]:
    names = {node.id for node in gone}
    return [
        event.record.node_id
        for _, _, event in simulation.events(EventKind.DEAD)
        if event.record.node_id not in names
    ]


def detection_secs(seed: int, size: int, network: Network) -> float:
    """Return after how long all others hold a node dead that has crashed."""
    simulation = Simulation(seed, network)
    nodes = simulation.cluster(size)
    simulation.run(20 + simulation.rng.random() * 10)
    crashed = simulation.rng.choice(nodes)
    simulation.crash(crashed)
    others = [node for node in nodes if node is not crashed]
    secs = simulation.run_until(
        lambda: all(simulation.holds(node, crashed) == State.DEAD for node in others), 60
    )
    assert not dead_by_mistake(simulation, crashed)
    return secs


# Joining.


@pytest.mark.parametrize("size", [2, 3, 10, 50])
def test_all_find_each_other_within_seconds(size: int) -> None:
    simulation = Simulation(1)
    nodes = [simulation.start(number, [address_of(0)]) for number in range(size)]
    assert simulation.run_until(lambda: simulation.is_whole(nodes), 20) < 5


def test_only_the_member_itself_may_leave_its_address_open() -> None:
    me, other = record_of(0), record_of(1)
    nowhere = Address("0.0.0.0", 4001)
    told = msgspec.structs.replace(other, gossip=nowhere, transport=nowhere)
    membership = Membership(me, Tuning(), random.Random(1), 0.0)
    source = Address("192.0.2.7", 4001)
    membership.receive(1.0, 0, source, 1, Gossip("node-9", (told,)))
    assert other.node_id not in membership.roster.members
    membership.receive(1.0, 0, source, other.instance, Gossip(other.node_id, (told,)))
    assert membership.roster.members[other.node_id].record.gossip == source


@pytest.mark.parametrize("size", [3, 10])
def test_all_find_each_other_also_where_much_is_lost(size: int) -> None:
    simulation = Simulation(2, LOSSY)
    nodes = [simulation.start(number, [address_of(0)]) for number in range(size)]
    simulation.run_until(lambda: simulation.is_whole(nodes), 60)


def test_a_bootstrap_address_is_tried_for_ever_less_and_less_often() -> None:
    simulation = Simulation(3)
    alone = simulation.start(0, [address_of(1)])
    simulation.run(7_200)
    assert 7_200 / JOIN_MOST < simulation.sent < 3 * 7_200 / JOIN_MOST
    late = simulation.start(1)
    simulation.run_until(lambda: simulation.is_whole([alone, late]), JOIN_MOST + 1)


def test_a_node_that_is_told_to_join_itself_hardly_asks() -> None:
    simulation = Simulation(4)
    simulation.start(0, [address_of(0)])
    simulation.run(590)
    assert simulation.sent == 1
    simulation.run(590)
    assert simulation.sent == 2


def test_a_list_of_many_members_comes_in_pages() -> None:
    simulation = Simulation(5)
    known = [record_of(number) for number in range(2, 400)]
    old = simulation.start(0, known=known)
    new = simulation.start(1, [address_of(0)])
    simulation.run_until(lambda: len(new.membership.roster.members) == 399, 10)
    assert len(old.membership.roster.members) == 399


def test_a_restarted_node_finds_the_others_by_what_it_knew() -> None:
    simulation = Simulation(6)
    nodes = simulation.cluster(3)
    known = [member.record for member in nodes[2].membership.roster.members.values()]
    simulation.crash(nodes[2])
    again = simulation.start(2, instance=2, known=known)
    simulation.run_until(lambda: simulation.is_whole([*nodes[:2], again]), 40)


# Crashes.


@pytest.mark.parametrize(("size", "runs", "most_secs"), [(3, 30, 10), (10, 12, 10.5), (50, 1, 16)])
def test_a_crash_is_known_everywhere_soon(size: int, runs: int, most_secs: float) -> None:
    took = sorted(detection_secs(seed, size, Network()) for seed in range(runs))
    assert took[len(took) // 2] < 0.75 * most_secs
    assert took[-1] < most_secs


def test_a_crash_is_known_everywhere_also_where_much_is_lost() -> None:
    took = sorted(detection_secs(seed, 10, LOSSY) for seed in range(8))
    assert took[len(took) // 2] < 9
    assert took[-1] < 16


@pytest.mark.parametrize(("size", "secs"), [(2, 900), (3, 900), (10, 300), (50, 15)])
def test_nobody_dies_of_lost_messages(size: int, secs: float) -> None:
    simulation = Simulation(7, Network(loss=0.3))
    nodes = simulation.cluster(size)
    simulation.run(secs)
    assert dead_by_mistake(simulation) == []
    assert simulation.events(EventKind.REFUTED), "nobody was ever suspected"
    assert simulation.is_whole(nodes)


def test_half_of_a_cluster_crashing_at_once_is_known_to_the_rest() -> None:
    simulation = Simulation(8)
    nodes = simulation.cluster(10)
    for node in nodes[:5]:
        simulation.crash(node)
    simulation.run_until(lambda: simulation.is_whole(nodes[5:]), 60)
    assert not dead_by_mistake(simulation, *nodes[:5])


# Standstills.


@pytest.mark.parametrize("secs", [0.5, 1.7, 3.0, 30.0, 300.0])
@pytest.mark.parametrize("loses_backlog", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_paused_node_accuses_nobody(secs: float, loses_backlog: bool, seed: int) -> None:
    simulation = Simulation(seed)
    nodes = simulation.cluster(5)
    nodes[0].loses_backlog = loses_backlog
    simulation.run(simulation.rng.random() * 5)
    while nodes[0].membership._prober._probe is None:
        simulation.run(0.01)
    paused = nodes[0]
    simulation.pause(paused, secs)
    simulation.run(secs + 60)
    accusers = {event.record.accuser for _, _, event in simulation.events(EventKind.SUSPECTED)}
    assert paused.id not in accusers
    assert not dead_by_mistake(simulation, paused)
    assert simulation.is_whole(nodes)


def test_a_node_that_stands_still_again_and_again_kills_nobody() -> None:
    simulation = Simulation(9)
    nodes = simulation.cluster(8)
    for _ in range(60):
        simulation.pause(nodes[0], 0.2 + 3 * simulation.rng.random())
        simulation.run(4)
    assert not dead_by_mistake(simulation, nodes[0])
    simulation.run(30)
    assert simulation.is_whole(nodes)


def test_a_node_that_hears_late_probes_more_slowly() -> None:
    simulation = Simulation(10)
    nodes = simulation.cluster(3)
    assert nodes[0].membership.health == 0
    for _ in range(4):
        simulation.pause(nodes[0], 0.6)
        simulation.run(0.7)
    assert nodes[0].membership.health >= 2
    simulation.run(60)
    assert nodes[0].membership.health == 0


@pytest.mark.parametrize("slow_secs", [0.3, 0.9, 2.0])
def test_a_slow_node_kills_nobody_and_learns_to_wait(slow_secs: float) -> None:
    simulation = Simulation(22)
    nodes = simulation.cluster(8)
    nodes[0].slow_secs = slow_secs
    simulation.run(180)
    assert not dead_by_mistake(simulation)
    start = simulation.now
    simulation.run(60)
    late = [
        event.record.accuser
        for at, _, event in simulation.events(EventKind.SUSPECTED)
        if at > start
    ]
    assert len(late) == 0 or nodes[0].membership.health > 0


def test_two_that_do_not_hear_each_other_are_kept_by_the_others() -> None:
    simulation = Simulation(23)
    simulation.cluster(5)
    simulation.cut = lambda one, other: {one, other} == {0, 1}
    simulation.run(300)
    assert simulation.events(EventKind.SUSPECTED) == []


def test_a_node_that_hears_nothing_kills_nobody_elsewhere() -> None:
    simulation = Simulation(11)
    nodes = simulation.cluster(6)
    is_deaf = True

    def loses(_sender: int, receiver: int) -> bool:
        return is_deaf and receiver == 0

    simulation.cut = loses
    simulation.run(120)
    wrong = [
        event.record.node_id
        for _, node, event in simulation.events(EventKind.DEAD)
        if node is not nodes[0] and event.record.node_id != nodes[0].id
    ]
    assert wrong == []
    is_deaf = False
    simulation.run_until(lambda: simulation.is_whole(nodes), 30)


# Partitions.


@pytest.mark.parametrize("secs", [5, 60, 1800])
def test_a_partition_heals_within_seconds(secs: float) -> None:
    simulation = Simulation(12)
    nodes = simulation.cluster(4)
    for node in nodes:
        node.membership.meet([], simulation.now)
    is_cut = True
    simulation.cut = lambda one, other: is_cut and (one < 2) != (other < 2)
    simulation.run(secs)
    is_cut = False
    simulation.run_until(lambda: simulation.is_whole(nodes), 12)


def test_one_that_was_cut_off_from_many_comes_back() -> None:
    simulation = Simulation(13)
    nodes = simulation.cluster(12)
    for node in nodes:
        node.membership.meet([], simulation.now)
    is_cut = True
    simulation.cut = lambda one, other: is_cut and 0 in (one, other)
    simulation.run(120)
    assert all(simulation.holds(node, nodes[0]) == State.DEAD for node in nodes[1:])
    is_cut = False
    simulation.run_until(lambda: simulation.is_whole(nodes), 10)
    assert not dead_by_mistake(simulation, *nodes)


# Leaving, coming back, taking over.


def test_who_leaves_is_known_to_have_left_within_a_second_and_is_not_dead() -> None:
    simulation = Simulation(14)
    nodes = simulation.cluster(10)
    nodes[3].membership.leave()
    simulation.run_until(lambda: nodes[3].membership.is_silent, 1.0)
    simulation.crash(nodes[3])
    others = [node for node in nodes if node is not nodes[3]]
    assert simulation.run_until(lambda: simulation.is_whole(others), 3) < 1.5
    simulation.run(60)
    assert simulation.events(EventKind.DEAD) == []
    assert len(simulation.events(EventKind.LEFT)) == 9


def test_a_restart_needs_no_refutation_and_its_new_address_is_taken() -> None:
    simulation = Simulation(15)
    nodes = simulation.cluster(5)
    simulation.crash(nodes[4])
    simulation.run(30)
    moved = Address("10.9.9.9", 4001)
    again = simulation.start(4, [address_of(0)], instance=2, address=moved)
    simulation.run_until(lambda: simulation.is_whole([*nodes[:4], again]), 5)
    simulation.run(30)
    for node in nodes[:4]:
        member = node.membership.roster.members[again.id]
        assert (member.record.gossip, member.record.instance) == (moved, 2)
    assert not simulation.events(EventKind.DUPLICATE_NODE_ID)


def test_hundreds_of_fast_restarts_leave_no_ghosts() -> None:
    simulation = Simulation(16)
    nodes = simulation.cluster(4)
    for instance in range(2, 302):
        simulation.start(3, [address_of(0)], instance=instance)
        simulation.run(0.3)
    simulation.run(60)
    for node in nodes[:3]:
        assert len(node.membership.roster.members) == 3
        assert node.membership.roster.members["node-3"].record.instance == 301


def test_of_two_processes_with_one_id_the_older_one_knows_and_is_silent() -> None:
    simulation = Simulation(17)
    nodes = simulation.cluster(5)
    clone = simulation.start(2, [address_of(0)], instance=2, address=Address("10.7.7.7", 4001))
    simulation.run_until(lambda: nodes[2].membership.is_silent, 5)
    ((_, who, event),) = simulation.events(EventKind.DUPLICATE_NODE_ID)
    assert who is nodes[2]
    assert event.record.instance == 2
    simulation.run(60)
    assert not clone.membership.is_silent
    assert simulation.is_whole([*nodes[:2], *nodes[3:], clone])


def test_an_older_process_that_starts_later_is_told_that_its_id_is_taken() -> None:
    simulation = Simulation(18)
    simulation.cluster(3)
    late = simulation.start(2, [address_of(0)], instance=0, address=Address("10.7.7.7", 4001))
    simulation.run_until(lambda: late.membership.is_silent, 10)
    assert [node for _, node, _ in simulation.events(EventKind.DUPLICATE_NODE_ID)] == [late]


def test_a_dead_member_is_forgotten_by_all_and_may_come_back() -> None:
    simulation = Simulation(19)
    nodes = simulation.cluster(4)
    assert not nodes[0].membership.forget("node-3", simulation.now)
    assert not nodes[0].membership.forget("nobody", simulation.now)
    is_cut = True
    simulation.cut = lambda one, other: is_cut and 3 in (one, other)
    simulation.run(40)
    assert nodes[0].membership.forget("node-3", simulation.now)
    simulation.run(3)
    assert {simulation.holds(node, nodes[3]) for node in nodes[:3]} == {State.LEFT}
    is_cut = False
    simulation.run_until(lambda: simulation.is_whole(nodes), 30)


# What rides along.


def test_what_a_node_shows_is_seen_by_all_and_told_once() -> None:
    simulation = Simulation(20)
    nodes = simulation.cluster(5)
    nodes[1].membership.show(b"head 7")
    simulation.run(15)
    seen = simulation.events(EventKind.SHOWN)
    assert {node.id for _, node, _ in seen} == {"node-0", "node-2", "node-3", "node-4"}
    assert len(seen) == 4
    assert {event.payload for _, _, event in seen} == {b"head 7"}


def test_round_trips_and_clocks_are_measured() -> None:
    simulation = Simulation(21, Network(least_secs=0.05, most_secs=0.06))
    nodes = simulation.cluster(3)
    nodes[2].clock_ms = 600_000
    simulation.run(40)
    path = nodes[0].membership.roster.members["node-2"].round_trip
    assert path.secs is not None
    assert 0.1 <= path.secs <= 0.12
    assert abs((path.offset_ms() or 0) - 600_000) < 12


# One machine.


def machine(**known: Record) -> Membership:
    return Membership(record_of(0), Tuning(), random.Random(1), 0.0, known.values())


def answers(sends: list[Send], kind: type) -> list[Send]:
    return [send for send in sends if isinstance(send.message, kind)]


SOURCE = Address("192.0.2.77", 4001)


def test_a_ping_is_answered_where_it_came_from() -> None:
    ping = Ping("node-1", "node-0", 9, 2, 1000)
    (sent,) = machine().receive(1.0, 5000, SOURCE, 1, ping)
    assert sent.address == SOURCE
    assert isinstance(sent.message, Ack)
    assert (sent.message.seq, sent.message.attempt) == (9, 2)
    assert (sent.message.ping_wall_ms, sent.message.wall_ms) == (1000, 5000)


def test_a_ping_for_another_at_this_address_is_not_answered() -> None:
    ping = Ping("node-1", "node-5", 9, 0, 1000)
    assert answers(machine(a=record_of(1)).receive(1.0, 0, SOURCE, 1, ping), Ack) == []


def test_an_unknown_sender_is_asked_who_it_is() -> None:
    membership = machine()
    membership.receive(1.0, 0, SOURCE, 1, Ping("node-1", "node-0", 9, 0, 0))
    (sent,) = answers(membership.tick(1.05, 0), Pull)
    assert sent.address == SOURCE


def test_an_accusation_is_refuted_in_the_answer() -> None:
    membership = machine()
    accused = membership.me.as_state(State.SUSPECT, "node-1")
    ping = Ping("node-1", "node-0", 9, 0, 0, b"", (accused,))
    (sent,) = membership.receive(1.0, 0, SOURCE, 1, ping)
    assert isinstance(sent.message, Ack)
    assert sent.message.records[0] == membership.me
    assert (membership.me.incarnation, membership.me.state) == (1, State.ALIVE)


def test_who_is_held_dead_is_told_so_and_is_not_alive_by_speaking() -> None:
    membership = machine(a=record_of(1).as_state(State.DEAD, "node-2"))
    (sent,) = membership.receive(1.0, 0, SOURCE, 1, Ping("node-1", "node-0", 9, 0, 0))
    assert isinstance(sent.message, Ack)
    assert sent.message.records[0] == record_of(1).as_state(State.SUSPECT, "node-2")
    assert membership.roster.members["node-1"].state == State.DEAD


def test_an_old_alive_is_answered_with_the_accusation_once_a_period() -> None:
    membership = machine(
        a=record_of(1).as_state(State.DEAD, "node-2"), b=record_of(2), c=record_of(3)
    )
    gossip = Gossip("node-3", (record_of(1),))
    (sent,) = membership.receive(1.0, 0, SOURCE, 1, gossip)
    assert sent.message == Gossip("node-0", (record_of(1).as_state(State.SUSPECT, "node-2"),))
    assert membership.receive(1.5, 0, SOURCE, 1, gossip) == []
    assert membership.receive(2.5, 0, SOURCE, 1, gossip) != []


def test_an_accusation_is_never_answered_by_an_accusation() -> None:
    membership = machine(a=record_of(1).as_state(State.DEAD, "node-2"), b=record_of(2))
    gossip = Gossip("node-2", (record_of(1).as_state(State.SUSPECT, "node-3"),))
    assert membership.receive(1.0, 0, SOURCE, 1, gossip) == []


def test_records_of_a_state_from_a_later_version_are_skipped() -> None:
    membership = machine()
    record = Record("node-1", 1, 0, 9, "eu", SOURCE, SOURCE)
    membership.receive(1.0, 0, SOURCE, 1, Gossip("node-2", (record, record_of(2))))
    assert set(membership.roster.members) == {"node-2"}


def test_answers_to_nothing_that_was_asked_change_nothing() -> None:
    membership = machine(a=record_of(1))
    assert membership.receive(1.0, 0, SOURCE, 1, Ack("node-1", 7, 0, 0, 0)) == []
    assert membership.receive(1.0, 0, SOURCE, 1, Page("node-1", 7, "x", ())) == []
    assert membership.receive(1.0, 0, SOURCE, 1, PingRequest("node-1", "nobody", 7)) == []


def test_a_sender_that_was_replaced_is_told_and_not_heard() -> None:
    newest = record_of(1, instance=5)
    membership = machine(a=newest)
    gossip = Gossip("node-1", (record_of(9),))
    (sent,) = membership.receive(1.0, 0, SOURCE, 4, gossip)
    assert sent == Send(SOURCE, Gossip("node-0", (newest,)))
    assert "node-9" not in membership.roster.members


def ticks(membership: Membership, start: float, end: float) -> None:
    for tick in range(int((end - start) / 0.05)):
        membership.tick(start + tick * 0.05, 0)


@pytest.mark.parametrize(("paused_secs", "dies_after_secs"), [(30.0, 4.0), (1.5, 1.0)])
def test_a_suspect_is_not_judged_by_the_time_of_a_pause(
    paused_secs: float, dies_after_secs: float
) -> None:
    """After a pause it has all its time again, after a hitch what was left of it."""
    others = {name: record_of(number) for number, name in enumerate("abcdef", 1)}
    membership = machine(**others)
    for accuser in ("node-2", "node-3", "node-4", "node-5"):
        accusation = record_of(1).as_state(State.SUSPECT, accuser)
        membership.receive(0.0, 0, SOURCE, 1, Gossip(accuser, (accusation,)))
    ticks(membership, 0.0, 3.0)
    resumed_at = 3.0 + paused_secs
    ticks(membership, resumed_at, resumed_at + dies_after_secs - 0.2)
    assert membership.roster.members["node-1"].is_live
    start = resumed_at + dies_after_secs - 0.2
    ticks(membership, start, start + 0.5)
    assert membership.roster.members["node-1"].state == State.DEAD


def test_a_suspect_is_asked_before_it_is_buried_and_answers_with_its_own_record() -> None:
    membership = machine(a=record_of(1), b=record_of(2), c=record_of(3))
    accusation = record_of(1).as_state(State.SUSPECT, "node-2")
    membership.receive(0.0, 0, SOURCE, 1, Gossip("node-2", (accusation,)))
    ticks(membership, 0.05, 1.0)
    asked = [send.message for tick in range(3) for send in membership.tick(1 + tick * 0.05, 0)]
    pings = [each for each in asked if isinstance(each, Ping) and each.to_id == "node-1"]
    assert pings
    assert pings[0].records[0] == accusation
    suspect = Membership(record_of(1).refuting(4), Tuning(), random.Random(2), 0.0)
    (sent,) = suspect.receive(1.0, 0, SOURCE, 1, pings[0])
    assert isinstance(sent.message, Ack)
    assert sent.message.records[0] == suspect.me
    assert suspect.me.incarnation == 5


def test_whoever_left_says_nothing_any_longer() -> None:
    membership = machine(a=record_of(1))
    membership.leave()
    told = [send for tick in range(40) for send in membership.tick(tick * 0.05, 0)]
    assert membership.is_silent
    assert told
    assert all(
        isinstance(send.message, Gossip) and send.message.records[0].state == State.LEFT
        for send in told
    )
    assert membership.receive(3.0, 0, SOURCE, 1, Ping("node-1", "node-0", 1, 0, 0)) == []
