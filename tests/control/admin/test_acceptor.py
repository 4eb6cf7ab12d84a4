"""Who makes room for whom, and what happens when there are no descriptors."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgeproxy.control.admin.acceptor import (
    SILENCE_SECS,
    STALL_SECS,
    CallerConnection,
    CallerLimits,
    Room,
)
from edgeproxy.control.admin.pages import HttpPages
from tests.control.admin.test_pages import hello
from tests.control.serving import rest_of, served
from tests.waiting import wait_until


def connection(
    key: str, *, silent_at: float | None = None, stalled_at: float | None = None
) -> CallerConnection:
    """Return a connection of this caller."""
    made = CallerConnection(key, 0.0)
    made.silent_at, made.stalled_at = silent_at, stalled_at
    return made


def test_there_is_room_until_it_is_full() -> None:
    room = Room(3, 2)
    first, second, third = (connection(key) for key in "aab")
    assert room.enter(first, 0.0)
    assert room.enter(second, 0.0)
    assert not room.enter(connection("a"), 0.0), "one caller has a part of the room"
    assert room.enter(third, 0.0)
    assert not room.enter(connection("c"), 0.0)
    room.end(first)
    assert room.enter(connection("c"), 0.0)
    assert len(room) == 3


def test_the_silent_leave_first_and_of_them_the_oldest() -> None:
    room, left = Room(3, 3), list[float | None]()
    for silent_at in (None, 1.0, 2.0):
        each = connection("a", silent_at=silent_at, stalled_at=0.0)
        each.leave = lambda at=silent_at: left.append(at)  # type: ignore[misc]
        assert room.enter(each, 0.0)
    for _ in range(2):
        assert room.enter(connection("b"), 2.0 + SILENCE_SECS)
    assert left == [1.0, 2.0]


def test_who_has_just_come_is_not_silent_yet() -> None:
    room = Room(1, 1)
    assert room.enter(connection("a", silent_at=5.0), 5.0)
    assert not room.enter(connection("b"), 5.0 + SILENCE_SECS / 2)
    assert room.enter(connection("b"), 5.0 + SILENCE_SECS)


def test_a_crowded_caller_makes_room_only_among_its_own() -> None:
    room, left = Room(4, 1), list[str]()
    other = connection("b", silent_at=-9.0)
    other.leave = lambda: left.append("b")
    assert room.enter(other, 0.0)
    assert room.enter(connection("a"), 0.0)
    assert not room.enter(connection("a"), 0.0)
    assert not left


def test_who_has_not_read_for_a_while_leaves_and_of_those_the_one_for_longest() -> None:
    room, left = Room(3, 3), list[float | None]()
    for stalled_at in (5.0, 4.0, None):
        each = connection("a", stalled_at=stalled_at)
        each.leave = lambda at=stalled_at: left.append(at)  # type: ignore[misc]
        assert room.enter(each, 0.0)
    newcomer = connection("b")
    assert not room.enter(newcomer, 4.0 + STALL_SECS / 2)
    assert room.enter(newcomer, 4.0 + STALL_SECS)
    assert left == [4.0]


def test_a_visit_ends_once() -> None:
    room, one = Room(2, 1), connection("a")
    assert room.enter(one, 0.0)
    room.end(one)
    room.end(one)
    assert room.enter(connection("a"), 0.0)
    assert not room.enter(connection("a"), 0.0)


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Let this process open nothing meanwhile."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_without_descriptors_accepting_pauses_and_that_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        served(HttpPages({"/hello": hello}, limits=CallerLimits())) as where,
        socket.socket() as asking,
    ):
        with no_descriptors_left():
            asking.connect(where)
            asking.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: caplog.records, "the pause")
        assert rest_of(asking).endswith(b"hello "), "it is served when there are some again"
    assert [each.getMessage() for each in caplog.records] == ["pages_paused"]
