"""One followed thing: it is checked when asked, and when it hangs the log says so once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from edgeproxy.control.follower import HANGS_AFTER_TICKS, CollectorPause, Follower
from tests.events import Events, events_of
from tests.waiting import wait_until

DEADLINE_SECS = 20.0


@pytest.fixture
def events() -> Iterator[Events]:
    with events_of("app") as events:
        yield events


class Hanging:
    """A check that waits until it is let go."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self) -> bool:
        self.count += 1
        self.begun.release()
        self.go.wait(DEADLINE_SECS)
        return False


def test_a_check_that_is_asked_for_while_one_runs_comes_after_it_and_once() -> None:
    check = Hanging()
    follower = Follower("thing", check, CollectorPause())
    first = follower.ask()
    assert check.begun.acquire(timeout=DEADLINE_SECS)
    second = follower.ask()
    assert second is not first
    assert follower.ask() is second
    assert follower.is_busy
    assert follower.is_waiting
    check.go.set()
    second.result(DEADLINE_SECS)
    assert check.count == 2
    assert follower.end(DEADLINE_SECS)
    assert not follower.is_busy


def test_asking_from_many_threads_loses_no_check() -> None:
    count = 0

    def check() -> None:
        nonlocal count
        count += 1

    follower = Follower("thing", check, CollectorPause())

    def ask() -> None:
        for _ in range(200):
            before = count
            follower.ask().result(DEADLINE_SECS)
            assert count > before

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert follower.end(DEADLINE_SECS)
    assert 200 <= count <= 800


def test_one_that_hangs_is_told_once_and_once_more_when_it_goes_on(events: Events) -> None:
    check, hangs = Hanging(), []
    follower = Follower("thing", check, CollectorPause(), hangs=lambda: hangs.append(1))
    first = follower.ask()
    assert check.begun.acquire(timeout=DEADLINE_SECS)
    for _ in range(HANGS_AFTER_TICKS):
        follower.tick()
    assert events.named("check_hangs") == []
    for _ in range(3 * HANGS_AFTER_TICKS):
        follower.tick()
    assert events.named("check_hangs") == [{"what": "thing", "secs": HANGS_AFTER_TICKS}]
    assert hangs == [1]
    assert events.named("check_resumed") == []
    check.go.set()
    first.result(DEADLINE_SECS)
    wait_until(lambda: not follower.is_busy, "its end")
    follower.tick()
    follower.tick()
    assert events.named("check_resumed") == [{"what": "thing"}]
    follower.end(DEADLINE_SECS)


def test_many_short_checks_are_no_long_one(events: Events) -> None:
    follower = Follower("thing", int, CollectorPause())
    for _ in range(3 * HANGS_AFTER_TICKS):
        follower.ask().result(DEADLINE_SECS)
        follower.tick()
    assert events.all == []
    follower.end(DEADLINE_SECS)


def test_a_check_that_fails_is_told_and_the_next_one_comes(events: Events) -> None:
    def fail() -> None:
        raise ValueError("as asked")

    ended = []
    follower = Follower("thing", fail, CollectorPause(), lambda: ended.append(1))
    follower.ask().result(DEADLINE_SECS)
    follower.ask().result(DEADLINE_SECS)
    assert events.named("look_failed") == [{"what": "thing"}] * 2
    assert ended == [1, 1]
    follower.end(DEADLINE_SECS)


def test_the_end_waits_for_no_check_that_hangs_and_begins_none() -> None:
    check = Hanging()
    follower = Follower("thing", check, CollectorPause())
    follower.ask()
    assert check.begun.acquire(timeout=DEADLINE_SECS)
    waiting = follower.ask()
    assert not follower.end(0)
    check.go.set()
    waiting.result(DEADLINE_SECS)
    assert follower.end(DEADLINE_SECS)
    assert check.count == 1


def test_the_collector_rests_while_a_check_runs_but_not_for_one_that_hangs() -> None:
    check, pause = Hanging(), CollectorPause()
    follower = Follower("thing", check, pause)
    follower.ask()
    assert check.begun.acquire(timeout=DEADLINE_SECS)
    assert not gc.isenabled()
    other = Follower("other", gc.isenabled, pause)
    other.ask().result(DEADLINE_SECS)
    assert not gc.isenabled(), "the first check still runs"
    for _ in range(HANGS_AFTER_TICKS + 1):
        follower.tick()
    assert gc.isenabled()
    check.go.set()
    assert follower.end(DEADLINE_SECS)
    assert other.end(DEADLINE_SECS)
    assert gc.isenabled()
