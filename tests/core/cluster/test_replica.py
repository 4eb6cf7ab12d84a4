"""Replicas among each other: what is pushed, pulled, forgotten and started anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.core.cluster.cells import Cell
from edgeproxy.core.cluster.messages import CHUNK_BYTES, Cells, Hello, Pull, Push, Reset, Wanted
from edgeproxy.core.cluster.own_copy import HOUR_MS, KEEP_MS
from edgeproxy.core.cluster.replica import ANSWER_MS
from edgeproxy.core.cluster.rows import BACKENDS, Edit, Key
from edgeproxy.core.cluster.store import MemoryStore
from edgeproxy.core.cluster.vectors import Head, seq_of
from edgeproxy.errors import StateError
from tests.core.cluster.network import Network, value_of
from tests.core.cluster.samples import BACKEND, ORIGINS, ROUTE, route

WEEK_MS = KEEP_MS + 2 * HOUR_MS


def three(seed: int = 0) -> Network:
    network = Network("abc", seed)
    network.deliver()
    return network


def backend(number: int, **columns: int | str) -> Edit:
    return Edit(Key(BACKENDS, f"b{number}"), {"app": "a", "weight": 1, **columns})


def test_a_write_is_everywhere_after_one_message_to_each_peer() -> None:
    network = three()
    before = network.sent
    network.write("a", route("x"))
    network.deliver()
    assert network.sent == before + 2
    assert value_of(network, "b", ROUTE) == value_of(network, "c", ROUTE) == {"app": "x"}
    network.check_equal()


def test_an_edit_that_changes_nothing_is_not_sent_but_its_token_is_kept() -> None:
    network = three()
    network.write("a", route("x"))
    assert network.nodes["a"].write([route("x")], "token", network.now_ms) == []
    assert network.stores["a"].facts().token == "token"


def test_a_token_is_kept_with_its_write_or_not_at_all() -> None:
    network = three()
    with pytest.raises(ValueError, match="no replicated column"):
        network.nodes["a"].write([route("x"), Edit(ROUTE, {"other": 1})], "token", network.now_ms)
    assert network.stores["a"].facts().token == ""
    assert network.rows("a") == {}


def test_concurrent_edits_of_different_groups_are_both_kept() -> None:
    network = three()
    network.write("a", backend(1))
    network.deliver()
    network.write("a", backend(1, weight=5))
    network.write("b", Edit(Key(BACKENDS, "b1"), {"healthy": 0}))
    network.deliver()
    row = value_of(network, "c", Key(BACKENDS, "b1"))
    assert row is not None
    assert (row["weight"], row["healthy"]) == (5, 0)
    network.check_equal()


def test_a_large_write_becomes_several_transactions_each_of_which_fits_in_a_message() -> None:
    network = three()
    text = "x" * 1000
    network.write("a", *(backend(number, app=text) for number in range(2_500)))
    pushes = [message for _, other, message in network.queue if other == "b"]
    assert len(pushes) > 2
    assert all(
        len(message.cells) * 100 < 4 * CHUNK_BYTES
        for message in pushes
        if isinstance(message, Push)
    )
    network.deliver()
    assert len(network.rows("c")) == 2_500
    network.check_equal()


def test_a_lost_push_is_pulled_once_the_next_one_comes() -> None:
    network = three()
    network.write("a", route("x"))
    network.queue.clear()
    network.write("a", route("y", "b.example"))
    network.deliver()
    assert len(network.rows("b")) == 2
    assert network.total("gaps") == 2
    network.check_equal()


def test_a_lost_push_is_found_by_a_greeting() -> None:
    network = three()
    network.write("a", route("x"))
    network.queue.clear()
    network.tick(3)
    network.check_equal()
    assert network.rows("c")


def test_many_pushes_after_a_gap_lead_to_one_pull() -> None:
    network = three()
    network.write("a", route("x"))
    network.queue.clear()
    for number in range(20):
        network.write("a", route("y", f"{number}.example"))
    network.deliver()
    assert network.nodes["b"].counters.pulls == 1
    network.check_equal()


def test_a_pull_that_is_not_answered_is_given_up_and_asked_of_another() -> None:
    network = three()
    network.part("a", "b", is_noticed=False)
    network.write("a", route("x"))
    network.deliver()
    node = network.nodes["b"]
    hello = network.nodes["c"].joined("b", network.now_ms)[0].message
    (pull,) = node.receive("a", hello, network.now_ms)
    assert isinstance(pull.message, Pull)
    assert node.receive("c", hello, network.now_ms) == []
    network.now_ms += ANSWER_MS
    sends = node.tick(network.now_ms, network.rng)
    assert node.counters.unanswered == 1
    assert [send.peer for send in sends if isinstance(send.message, Pull)] == ["c"]


def test_a_clock_that_is_set_back_keeps_no_pull_waiting() -> None:
    network = three()
    network.part("a", "b", is_noticed=False)
    network.write("a", route("x"))
    network.deliver()
    node = network.nodes["b"]
    hello = network.nodes["c"].joined("b", network.now_ms)[0].message
    assert node.receive("a", hello, network.now_ms)
    node.tick(network.now_ms - 1, network.rng)
    assert node.counters.unanswered == 1


def test_who_the_writer_cannot_reach_gets_a_write_from_another_within_one_interval() -> None:
    network = three()
    network.part("a", "c")
    network.write("a", route("x"))
    network.deliver()
    assert value_of(network, "c", ROUTE) is None
    network.tick(1)
    assert value_of(network, "c", ROUTE) == {"app": "x"}
    network.check_equal()


def test_the_same_push_twice_is_one() -> None:
    network = three()
    network.write("a", route("x"))
    network.queue.extend(list(network.queue))
    network.deliver()
    assert network.total("duplicates") == 2
    network.check_equal()


def test_an_idle_cluster_says_little_and_pulls_nothing() -> None:
    network = three()
    network.write("a", route("x"))
    network.deliver()
    pulls, sent = network.total("pulls"), network.sent
    network.tick(100)
    assert network.total("pulls") == pulls
    assert network.sent == sent + 300


def test_a_new_node_gets_everything_in_parts() -> None:
    network = three()
    network.part("a", "c")
    network.part("b", "c")
    network.write("a", *(backend(number, app="x" * 1000) for number in range(1_000)))
    network.deliver()
    network.meet("b", "c")
    parts = 0
    while network.queue:
        name, other, message = network.queue.popleft()
        parts += isinstance(message, Cells) and other == "c"
        network.send(other, network.nodes[other].receive(name, message, network.now_ms))
        # None of it shows before all of it is there.
        assert len(network.rows("c")) in (0, 1_000)
    assert parts > 2
    assert len(network.rows("c")) == 1_000


def test_a_part_that_is_lost_spoils_the_answer_which_is_asked_for_again() -> None:
    network = three()
    network.part("a", "c")
    network.part("b", "c")
    network.write("a", *(backend(number, app="x" * 1000) for number in range(1_000)))
    network.deliver()
    network.meet("b", "c")
    kept = []
    while network.queue:
        name, other, message = network.queue.popleft()
        if isinstance(message, Cells) and message.part == 1:
            kept.append(message)
            continue
        network.send(other, network.nodes[other].receive(name, message, network.now_ms))
    assert len(kept) == 1
    assert network.rows("c") == {}
    # That it comes after all does not help: it belongs to nothing.
    network.tick(2)
    assert len(network.rows("c")) == 1_000
    assert network.nodes["c"].receive("b", kept[0], network.now_ms) == []
    network.check_equal()


def test_old_tombstones_are_dropped_everywhere_without_a_reset() -> None:
    network = three()
    network.write("a", route("x"))
    network.write("b", route("y", "b.example"))
    network.deliver()
    network.write("a", route(None))
    network.deliver()
    network.tick(5)
    network.tick(5, WEEK_MS // 4)
    network.tick(5)
    assert all(not list(store.tombstones()) for store in network.stores.values())
    assert network.total("resets") == 0
    assert network.nodes["a"].copy.generation
    network.check_equal()


def test_the_writer_of_a_delete_keeps_it_until_somebody_else_has_it() -> None:
    network = three()
    network.write("a", route("x"))
    network.deliver()
    network.part("a", "b")
    network.part("a", "c")
    network.write("a", route(None))
    network.tick(5, WEEK_MS)
    assert list(network.stores["a"].tombstones())
    network.meet("a", "b")
    network.deliver()
    network.tick(3)
    assert value_of(network, "c", ROUTE) is None or value_of(network, "b", ROUTE) is None
    network.meet("a", "c")
    network.tick(3)
    network.check_equal()
    assert network.rows("b") == {}


def away_for_a_week(network: Network) -> None:
    """Let c be away while a row that it knows is deleted and forgotten."""
    network.write("a", route("x"))
    network.write("a", route("z", "z.example"))
    network.deliver()
    network.tick(3)
    network.part("a", "c")
    network.part("b", "c")
    network.write("a", route(None))
    network.deliver()
    network.tick(5)


def come_back(network: Network) -> None:
    network.tick(5, WEEK_MS // 4)
    network.meet("b", "c")
    network.meet("a", "c")
    network.deliver()
    network.tick(10)


def test_who_was_away_for_too_long_starts_anew_and_nothing_comes_back() -> None:
    network = three()
    away_for_a_week(network)
    origin = network.nodes["c"].copy.origin
    come_back(network)
    network.check_equal()
    assert network.nodes["c"].counters.resets == 1
    assert network.nodes["c"].copy.origin != origin
    assert ROUTE not in network.rows("c")
    assert len(network.rows("c")) == 1


def test_what_was_written_away_is_written_anew() -> None:
    network = three()
    away_for_a_week(network)
    network.write("c", route("y", "new.example"))
    network.write("c", route(None, "z.example"))
    come_back(network)
    network.check_equal()
    assert network.rows("a") == {Key(ROUTE.table, "new.example"): {"app": "y"}}
    assert network.nodes["c"].counters.resets == 1


def test_an_update_away_is_void_if_the_row_was_deleted_meanwhile() -> None:
    network = three()
    away_for_a_week(network)
    network.write("c", route("other"))
    network.write("c", route("kept", "z.example"))
    come_back(network)
    network.check_equal()
    assert network.rows("a") == {Key(ROUTE.table, "z.example"): {"app": "kept"}}


def test_an_older_write_away_does_not_replace_a_newer_one() -> None:
    network = three()
    away_for_a_week(network)
    network.write("c", route("older", "z.example"))
    network.now_ms += 10_000
    network.write("a", route("newer", "z.example"))
    network.deliver()
    come_back(network)
    network.check_equal()
    assert network.rows("c") == {Key(ROUTE.table, "z.example"): {"app": "newer"}}


def test_a_delete_is_not_undone_when_the_side_that_has_forgotten_it_starts_anew() -> None:
    """Two halves are apart for longer than tombstones are kept, and both have dropped some."""
    for seed in range(4):
        network = Network("abcd", seed)
        network.deliver()
        for number in range(4):
            network.write("a", route("x", f"{number}.example"))
        network.deliver()
        network.tick(5)
        for one, other in ("ac", "ad", "bc", "bd"):
            network.part(one, other)
        network.write("a", route(None, "0.example"))
        network.write("c", route(None, "1.example"))
        network.deliver()
        network.tick(10)
        network.tick(5, WEEK_MS // 4)
        assert not [cell for store in network.stores.values() for cell in store.tombstones()]
        for one, other in ("ac", "ad", "bc", "bd"):
            network.meet(one, other)
        network.deliver()
        network.tick(20)
        network.check_equal()
        assert sorted(key.id for key in network.rows("a")) == ["2.example", "3.example"]
        assert network.total("resets") == 2


def test_a_clone_is_taken_whole_and_in_one_transaction() -> None:
    network = three()
    away_for_a_week(network)
    network.write("a", *(backend(number, app="x" * 1000) for number in range(1_000)))
    network.deliver()
    network.tick(5, WEEK_MS // 4)
    network.meet("b", "c")
    seen = set()
    parts = 0
    while network.queue:
        name, other, message = network.queue.popleft()
        parts += isinstance(message, Reset)
        network.send(other, network.nodes[other].receive(name, message, network.now_ms))
        seen.add(len(network.rows("c")))
    assert parts > 2
    assert seen == {2, 1_001}


def test_a_node_that_stopped_in_order_keeps_its_origin() -> None:
    network = three()
    origin = network.nodes["a"].copy.origin
    network.write("a", route("x"))
    network.restart("a", is_stopped=True)
    assert network.nodes["a"].copy.origin == origin
    network.restart("a", is_stopped=False)
    assert network.nodes["a"].copy.origin != origin
    network.deliver()
    network.check_equal()


def test_what_a_killed_node_had_written_is_pulled_from_it() -> None:
    network = three()
    network.write("a", route("x"))
    network.queue.clear()
    network.restart("a", is_stopped=False)
    network.deliver()
    assert value_of(network, "c", ROUTE) == {"app": "x"}
    network.check_equal()


def restored(network: Network) -> MemoryStore:
    """Return a backup of a that was made while it was stopped; a goes on."""
    store = network.store_of("a")
    network.nodes["a"].stop()
    backup = store.copy()
    network.restart("a", is_stopped=True)
    network.deliver()
    return backup


def test_a_restored_backup_gets_a_new_origin_and_loses_nothing() -> None:
    network = three()
    network.write("a", route("x"))
    network.deliver()
    backup = restored(network)
    network.write("a", route("y", "b.example"))
    network.deliver()
    network.stores["a"] = backup
    origin = backup.facts().origin
    network.restart("a", is_stopped=False)
    network.deliver()
    network.tick(3)
    assert network.nodes["a"].copy.origin != origin
    assert len(network.rows("a")) == 2
    network.check_equal()


def test_what_a_restored_backup_wrote_under_a_used_origin_is_written_anew() -> None:
    network = three()
    network.write("a", route("x"))
    network.deliver()
    network.tick(3)
    backup = restored(network)
    network.write("a", route("known", "b.example"))
    network.write("a", route("known"))
    network.deliver()
    for other in "bc":
        network.part("a", other)
    network.stores["a"] = backup
    network.nodes["a"] = network.start("a")
    origin = network.nodes["a"].copy.origin
    network.now_ms += 1_000
    network.nodes["a"].write([route("alone", "c.example")], "", network.now_ms)
    network.nodes["a"].write([route("alone")], "", network.now_ms)
    for other in "bc":
        network.meet("a", other)
    network.deliver()
    network.tick(5)
    assert network.nodes["a"].copy.origin != origin
    assert network.nodes["a"].counters.renounced == 1
    network.check_equal()
    rows = {key.id: (values or {})["app"] for key, values in network.rows("b").items()}
    assert rows == {"b.example": "known", "c.example": "alone", ROUTE.id: "alone"}


def test_two_copies_of_one_machine_part_at_once() -> None:
    network = three()
    network.write("a", route("x"))
    network.deliver()
    network.tick(3)
    store = network.store_of("a")
    network.nodes["a"].stop()
    network.stores["b"] = store.copy()
    network.restart("a", is_stopped=True)
    network.nodes["b"] = network.start("b")
    for other in "ac":
        network.meet("b", other)
    network.deliver()
    assert network.nodes["a"].copy.origin == network.nodes["b"].copy.origin
    network.write("a", route("y"))
    network.deliver()
    network.write("b", route("z", "b.example"))
    network.deliver()
    network.tick(5)
    assert network.nodes["a"].copy.origin != network.nodes["b"].copy.origin
    network.check_equal()
    assert len(network.rows("c")) == 2


def test_a_difference_that_must_not_be_is_counted_and_mended() -> None:
    network = three()
    network.write("a", route("x"))
    network.deliver()
    store = network.stores["b"]
    with store.transaction():
        row = store.row(ROUTE)
        store.set_row(ROUTE, row, {})
    assert network.rows("b") == {}
    network.tick(3)
    assert network.total("divergences") >= 1
    network.check_equal()
    assert network.rows("b")


def test_a_difference_that_cannot_be_mended_is_not_pulled_all_the_time() -> None:
    network = Network("ab")
    network.deliver()
    network.write("a", route("x"))
    network.deliver()
    for _ in range(20):
        store = network.stores["b"]
        with store.transaction():
            store.set_row(ROUTE, store.row(ROUTE), {})
        network.tick(1)
    assert network.total("divergences") <= 2


def test_a_peer_of_another_version_is_left_alone() -> None:
    network = three()
    hello = network.nodes["a"].joined("b", network.now_ms)[0].message
    assert isinstance(hello, Hello)
    node = network.nodes["b"]
    newer = hello._replace(versions=(2, 3), vector_id=b"other000")
    assert node.receive("a", newer, network.now_ms) == []
    assert node.counters.incompatible == 1


def test_what_comes_after_the_end_of_a_session_is_ignored() -> None:
    network = three()
    network.write("a", route("x"))
    network.nodes["b"].left("a")
    network.deliver()
    assert value_of(network, "b", ROUTE) is None


def test_a_clock_that_is_ahead_takes_the_others_along() -> None:
    network = three()
    network.skew_ms["a"] = 600_000
    network.write("a", route("fast"))
    network.deliver()
    network.write("b", route("later"))
    network.deliver()
    assert value_of(network, "a", ROUTE) == {"app": "later"}
    assert network.nodes["b"].copy.ahead_ms == 600_000
    network.check_equal()


def test_a_greeting_says_what_it_must() -> None:
    network = three()
    network.write("a", route("x"))
    (send,) = network.nodes["a"].joined("b", network.now_ms)
    copy = network.nodes["a"].copy
    assert isinstance(send.message, Hello)
    assert send.message.vector == {copy.origin: copy.own_head}
    assert int.from_bytes(send.message.digest) == network.stores["a"].digest()


def test_a_pull_of_everything_ignores_the_vector() -> None:
    network = three()
    network.write("a", route("x"))
    network.deliver()
    node = network.nodes["a"]
    pull = Pull(1, Wanted.ALL, node.copy.generation_id, node.copy.vector)
    (_, cells), *_ = node.receive("b", pull, network.now_ms)
    assert isinstance(cells, Cells)
    assert len(cells.cells) == 2


@pytest.mark.parametrize("wanted", [Wanted.ALL, Wanted.UNSEEN])
def test_a_fault_in_the_middle_of_an_answer_notes_no_pull_that_nobody_hears_of(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = three()
    network.write("a", route("x"))
    network.deliver()
    node = network.nodes["a"]
    vector = {ORIGINS[0]: Head(7, b"c" * 8)}  # which this node lacks

    def beyond(_: object) -> Iterator[Cell]:
        raise StateError("the disk is broken")

    monkeypatch.setattr(node.copy, "beyond", beyond)
    pull = Pull(1, wanted, node.copy.generation_id, vector)
    with pytest.raises(StateError):
        list(node.receive("b", pull, network.now_ms))
    monkeypatch.undo()
    assert any(
        isinstance(send.message, Pull)
        for send in node.receive("b", pull._replace(wanted=Wanted.UNSEEN), network.now_ms)
    )


KINDS = ("write", "write", "write", "delete", "deliver", "lossy", "part", "meet")
RARER = ("tick", "hour", "week", "kill", "stop", "skew")
STEPS = st.lists(st.sampled_from(KINDS + RARER), min_size=20, max_size=80)
NAMES = st.sampled_from(["ab", "abc", "abcd"])


def pairs(names: str) -> list[tuple[str, str]]:
    return [(one, other) for one in names for other in names if one < other]


def act(network: Network, names: str, step: str) -> None:
    rng = network.rng
    name = rng.choice(names)
    key = Key(BACKENDS, f"b{rng.randrange(3)}")
    if step == "write":
        network.write(name, Edit(key, {rng.choice(["weight", "port"]): rng.randrange(100)}))
    elif step == "delete":
        network.write(name, Edit(key, None))
    elif step == "deliver":
        network.deliver()
    elif step == "lossy":
        network.deliver(loss=0.3, disorder=0.3)
    elif step == "part":
        network.part(*rng.choice(pairs(names)), is_noticed=rng.random() < 0.5)
    elif step == "meet":
        network.meet(*rng.choice(pairs(names)))
    elif step in ("kill", "stop"):
        network.queue.clear()
        network.restart(name, is_stopped=step == "stop")
    elif step == "skew":
        network.skew_ms[name] = rng.randrange(-600_000, 600_000)
    else:
        network.tick(1, {"tick": 1_000, "hour": HOUR_MS, "week": WEEK_MS}[step])


def come_together(network: Network, names: str, ticks: int) -> None:
    for pair in pairs(names):
        network.meet(*pair)
    network.deliver()
    network.tick(ticks)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.integers(0, 1 << 32), NAMES)
def test_whatever_happens_all_agree_in_the_end(steps: list[str], seed: int, names: str) -> None:
    network = Network(names, seed)
    for step in steps:
        act(network, names, step)
        network.check()
    come_together(network, names, 30)
    network.check_equal()
    assert BACKEND not in network.rows("a")
    assert network.total("divergences") == 0
    assert network.total("renounced") == 0
    if network.total("resets") == 0:
        vector = network.nodes["a"].copy.vector
        assert all(cell.seq <= seq_of(vector, cell.origin) for cell in network.writes)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(0, 1 << 32), NAMES)
def test_all_agree_in_the_end_also_with_restored_backups(
    steps: list[str], seed: int, names: str
) -> None:
    """What was written twice under one origin has no truth to compare with, but one end."""
    network = Network(names, seed)
    rng = network.rng
    backups: dict[str, MemoryStore] = {}
    for step in steps:
        name = rng.choice(names)
        if step == "stop":
            network.queue.clear()
            network.nodes[name].stop()
            backups[name] = network.store_of(name).copy()
            network.restart(name, is_stopped=True)
        elif step == "kill" and name in backups:
            network.queue.clear()
            network.stores[name] = backups[name].copy()
            network.restart(name, is_stopped=False)
            for other in names:
                if other != name and rng.random() < 0.7:
                    network.part(name, other)
            for _ in range(rng.randrange(3)):
                network.write(name, Edit(Key(BACKENDS, "b1"), {"weight": rng.randrange(100)}))
        else:
            act(network, names, step)
    come_together(network, names, 150)
    assert len({node.copy.vector_id for node in network.nodes.values()}) == 1
    assert len({node.copy.generation_id for node in network.nodes.values()}) == 1
    assert len({node.copy.digest for node in network.nodes.values()}) == 1
    pulls = network.total("pulls")
    network.tick(30)
    assert network.total("pulls") == pulls
