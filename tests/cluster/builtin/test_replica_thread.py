"""A replica on a thread of its own: in order, message by message, and holding up nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from edgeproxy.cluster.builtin.replica_thread import PAGE_ROWS, ReplicaThread, Uses
from edgeproxy.cluster.engine import EngineError, LostPositionError
from edgeproxy.core.cluster.messages import Cells, Message, Pull, Send, Wanted
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.rows import ROUTES, Edit, Key
from edgeproxy.errors import StateError
from edgeproxy.wire.replication import decode
from tests.events import events_of
from tests.waiting import wait_until

NOW_MS = 1_800_000_000_000


class Told:
    """A replica, and what it tells. What is posted is called by `turn`, as a loop would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.posted: SimpleQueue[Any] = SimpleQueue()
        self.said: list[tuple[str | None, Message]] = []
        self.changes: list[bool] = []
        self.replica = ReplicaThread(path)
        self.uses = Uses(
            lambda call, *args: self.posted.put((call, args)),
            lambda peer, frame: self.said.append((peer, decode(frame))),
            self.changes.append,
        )

    def start(self) -> None:
        self.replica.start(self.uses)

    def turn(self, done: int) -> None:
        """Do what is posted until so many things are done."""
        while len(self.changes) < done:
            call, args = self.posted.get(timeout=30)
            call(*args)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path / "state.db")
    yield told
    told.replica.close()


def add(told: Told, *names: str, token: str = "t", after: str = "") -> None:
    told.replica.commit([Edit(Key(ROUTES, name), {"app": "x"}) for name in names], token, after, 1)


def test_what_is_written_is_told_to_all_and_shown(told: Told) -> None:
    told.start()
    before = told.replica.head
    add(told, "a")
    told.turn(1)
    assert [peer for peer, _ in told.said] == [None]
    assert told.changes == [False]  # the bridge has it, and need not be woken
    assert told.replica.head != before


def test_before_the_start_edits_are_taken_and_nobody_is_told(told: Told) -> None:
    add(told, "a")
    assert told.replica.last_token() == "t"
    told.start()
    told.replica.do(lambda replica: replica.tick(NOW_MS, NotCalled()))
    told.turn(1)
    assert told.changes == [False]


class NotCalled:
    def choice(self, _names: object) -> str:
        raise AssertionError("nobody is there")


def test_who_commits_after_another_bridge_is_refused(told: Told) -> None:
    add(told, "a")
    with pytest.raises(EngineError, match="another bridge"):
        add(told, "b", token="u", after="")
    assert told.replica.rows().keys() == {Key(ROUTES, "a")}


def test_all_is_done_in_order_and_then_the_caller_is_told(told: Told) -> None:
    told.start()
    order: list[str] = []

    def step(name: str) -> None:
        def decide(_: Replica) -> tuple[()]:
            order.append(name)
            return ()

        told.replica.do(decide, lambda: order.append(f"{name} done"))

    for name in "abc":
        step(name)
    told.turn(3)
    wait_until(lambda: not told.posted.empty(), "the last word")
    call, args = told.posted.get()
    call(*args)
    assert [each for each in order if "done" not in each] == ["a", "b", "c"]
    assert [each for each in order if "done" in each] == ["a done", "b done", "c done"]


def test_a_large_answer_is_told_part_by_part_while_it_is_made(told: Told) -> None:
    """So it is never in memory as a whole, and the peer does not wait for the last of it."""
    add(told, *(f"{number}" * 500 for number in range(1000)))
    told.start()
    told.replica.do(lambda replica: replica.joined("b", NOW_MS))
    told.turn(1)
    waiting: list[int] = []
    is_made = threading.Event()

    def serve(replica: Replica) -> Iterator[Send]:
        pull = Pull(7, Wanted.UNSEEN, replica.copy.generation_id, {})
        for send in replica.receive("b", pull, NOW_MS):
            waiting.append(told.posted.qsize())
            yield send
        is_made.set()

    told.replica.do(serve)
    assert is_made.wait(30)
    assert len(waiting) > 3
    assert waiting == list(range(len(waiting)))
    told.turn(2)
    assert sum(isinstance(message, Cells) for _, message in told.said) > 3


def test_a_wait_for_something_large_is_short_for_who_only_looks(told: Told) -> None:
    told.start()
    begun, go_on = threading.Event(), threading.Event()

    def stay(_: Replica) -> tuple[()]:
        begun.set()
        assert go_on.wait(30)
        return ()

    told.replica.do(stay)
    assert begun.wait(30)
    assert told.replica.behind(["b"]) == {"b": None}
    assert told.replica.counters()["pushes"] == 0
    go_on.set()
    told.turn(1)


def test_changes_come_in_pages_and_all_of_them(told: Told) -> None:
    names = {f"{number}" for number in range(PAGE_ROWS + 1)}
    add(told, *names)
    first = told.replica.changes("")
    assert len(first.rows) == PAGE_ROWS
    assert first.has_more
    second = told.replica.changes(first.position)
    assert not second.has_more
    assert {key.id for key in {**first.rows, **second.rows}} == names
    assert told.replica.changes(second.position) == (second.position, {}, False)
    add(told, "new", token="u", after="t")
    assert {key.id for key in told.replica.changes(second.position).rows} == {"new"}


def test_a_position_of_another_state_is_lost(told: Told, tmp_path: Path) -> None:
    add(told, "a")
    position = told.replica.changes("").position
    other = ReplicaThread(tmp_path / "other.db")
    with closing(other), pytest.raises(LostPositionError):
        other.changes(position)
    with pytest.raises(LostPositionError):
        told.replica.changes(position.partition(":")[0] + ":99")


def test_a_state_that_fails_is_told_once_and_all_goes_on(told: Told) -> None:
    told.start()

    def fail(_: Replica) -> tuple[()]:
        raise StateError("the disk is full")

    with events_of("cluster") as events:
        told.replica.do(fail)
        told.replica.do(fail)
        told.turn(2)
        assert told.replica.fault == "the disk is full"
        told.replica.do(lambda _: ())
        told.turn(3)
        wait_until(lambda: told.replica.fault == "", "it is well again")
    assert len(events.named("replication_state_failed")) == 1


def test_a_bug_is_told_and_all_goes_on(told: Told) -> None:
    told.start()
    with events_of("cluster") as events:
        told.replica.do(lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
        told.replica.do(lambda _: ())
        told.turn(2)
    assert len(events.named("replica_failed")) == 1


def test_what_waits_is_not_done_any_more_at_the_end(told: Told) -> None:
    told.start()
    begun, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def stay(_: Replica) -> tuple[()]:
        begun.set()
        assert go_on.wait(30)
        done.append("first")
        return ()

    def more(_: Replica) -> tuple[()]:
        done.append("more")
        return ()

    told.replica.do(stay)
    told.replica.do(more)
    assert begun.wait(30)
    closing_it = threading.Thread(target=told.replica.close)
    closing_it.start()
    wait_until(lambda: told.replica._is_over, "the end has begun")
    go_on.set()
    closing_it.join(30)
    assert done == ["first"]
    told.replica = ReplicaThread(told.path)


def test_that_it_has_met_others_is_known_after_a_restart(tmp_path: Path) -> None:
    told = Told(tmp_path / "state.db")
    with closing(told.replica):
        told.start()
        before = told.replica.has_met

        def meet(replica: Replica) -> tuple[()]:
            replica.is_level = True
            return ()

        told.replica.do(meet)
        told.turn(1)
        assert (before, told.replica.has_met) == (False, True)
    with closing(ReplicaThread(tmp_path / "state.db")) as again:
        assert again.has_met
