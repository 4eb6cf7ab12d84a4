"""The state as a file; what all stores must do is in `tests/cluster/conformance`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from edgeproxy.cluster.builtin.state_file import StateFile
from edgeproxy.core.cluster.cells import LIFE
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.rows import BACKENDS, Edit, Key
from edgeproxy.core.cluster.store import MemoryStore, Store
from edgeproxy.errors import StateError
from tests.core.cluster.network import START_MS, Network
from tests.core.cluster.samples import ROUTE, route


def replica(store: Store) -> Replica:
    numbers = count(os.getpid() << 32)
    return Replica(store, lambda: next(numbers).to_bytes(16))


def test_all_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = StateFile(path)
    node = replica(store)
    node.write([route("x"), route("y", "b.example")], "token", START_MS)
    node.write([route(None, "b.example")], "last", START_MS)
    node.stop()
    state = (store.facts(), store.vector(), store.digest(), list(store.changed_after(0)))
    store.close()
    again = StateFile(path)
    assert (again.facts(), again.vector(), again.digest(), list(again.changed_after(0))) == state
    assert again.facts().token == "last"
    assert replica(again).copy.origin == state[0].origin


def test_a_restart_in_the_middle_of_an_answer_takes_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    other = replica(MemoryStore())
    sends = other.write([route("x")], "", START_MS)
    node = replica(store := StateFile(path))
    node.copy.stage(sends[0].message.cells, is_first=True)  # type: ignore[union-attr]
    store.close()
    again = replica(StateFile(path))
    again.copy.take_answer((), {}, START_MS, is_whole=True)
    assert again.copy.digest == bytes(16)


def test_files_and_memory_hold_the_same(tmp_path: Path) -> None:
    network = Network("ab")
    network.stores["b"] = StateFile(tmp_path / "state.db")
    network.restart("b", is_stopped=False)
    for number in range(60):
        name = network.rng.choice("ab")
        key = Key(BACKENDS, f"b{network.rng.randrange(4)}")
        is_delete = network.rng.random() < 0.3
        network.write(name, Edit(key, None if is_delete else {"weight": number}))
        network.deliver(loss=0.2, disorder=0.2)
    network.tick(5)
    network.check_equal()
    network.tick(5, 3 * 86_400_000)
    network.check_equal()
    assert network.total("divergences") == 0


KILLED = """
import os, sys
from pathlib import Path
from edgeproxy.cluster.builtin.state_file import StateFile
from tests.cluster.builtin.test_state_file import START_MS, replica, route
node = replica(StateFile(Path(sys.argv[1])))
for number in range(1 << 30):
    edits = [route(str(number), f"{name}.example") for name in range(20)]
    node.write(edits, str(number), START_MS)
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.system
def test_a_killed_process_leaves_what_it_has_said_to_be_durable_and_nothing_half(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    for round_number in range(3):
        command = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(20 + 7 * round_number):
                said = writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
            said = (writer.stdout.read().splitlines() or [said])[-1]
        store = StateFile(path)
        token = int(store.facts().token)
        assert token in (int(said), int(said) + 1)
        assert {(row.values or {})["app"] for row in store.changed_after(0)} == {str(token)}
        assert len(list(store.changed_after(0))) == 20
        store.close()


def test_a_cell_that_is_no_cell_is_damage(tmp_path: Path) -> None:
    store = StateFile(tmp_path / "state.db")
    replica(store).write([route("x")], "", START_MS)
    store._connection.execute("UPDATE cells SET vals = x'c1' WHERE grp = ?", (LIFE,))
    with pytest.raises(StateError, match=r"state.db is damaged .* away and start again"):
        store.row(ROUTE)
    with pytest.raises(StateError, match="is damaged"):
        list(store.beyond({}))


def test_no_question_reads_a_whole_table(tmp_path: Path) -> None:
    store = StateFile(tmp_path / "state.db")
    asked: list[str] = []
    store._connection.set_trace_callback(asked.append)
    replica(store).write([route("x")], "", START_MS)
    for answers in (
        store.beyond({}),
        store.tombstones(),
        store.changed_after(0),
        store.staged(),
        store.unstaged(),
    ):
        list(answers)
    store._connection.set_trace_callback(None)
    plans = [
        (question, step[3])
        for question in set(asked)
        if question.startswith("SELECT") and "FROM staged ORDER" not in question  # wants all
        for step in store._connection.execute(f"EXPLAIN QUERY PLAN {question}")
    ]
    assert len(plans) > 6
    assert [plan for plan in plans if plan[1].startswith("SCAN") and "INDEX" not in plan[1]] == []
