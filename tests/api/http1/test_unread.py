"""Answers that are not read have a bound, for one caller and for all."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from edgeproxy.api.http1 import unread
from edgeproxy.api.http1.unread import MAX_BYTES, MAX_BYTES_OF_ONE, UnreadAnswers
from tests.api.http1.rig import App, serving
from tests.control.serving import raw, rest_of
from tests.waiting import wait_until

LARGE = 20_000_000
ASKED = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_one_caller_leaves_room_for_others() -> None:
    answers = UnreadAnswers()
    taken = 0
    while answers.take("a", 1 << 20):
        taken += 1 << 20
    assert taken == MAX_BYTES_OF_ONE
    assert answers.take("b", 1 << 20)
    answers.give_back("a", 1 << 20)
    assert answers.take("a", 1 << 20)


def test_all_callers_have_a_bound() -> None:
    answers = UnreadAnswers()
    taken = 0
    while answers.take(str(taken), 1 << 20):
        taken += 1 << 20
    assert taken == MAX_BYTES


def test_the_first_answer_may_be_of_any_size() -> None:
    assert UnreadAnswers().take("a", MAX_BYTES * 2)


def test_who_reads_nothing_gets_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """And when it has read, or gone, there is room again; small answers are always given."""
    monkeypatch.setattr(unread, "MAX_BYTES_OF_ONE", 3 * LARGE)
    with serving(App(large=LARGE)) as address, ExitStack() as kept:
        lazy = [kept.enter_context(socket.create_connection(address, 20)) for _ in range(3)]
        for each in lazy:
            each.sendall(ASKED)
            assert each.recv(9) == b"HTTP/1.1 "
        answer = raw(address, ASKED)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        assert raw(address, ASKED.replace(b"/large", b"/")).startswith(b"HTTP/1.1 200 ")
        assert len(rest_of(lazy[0])) > LARGE - 9
        wait_until(lambda: raw(address, ASKED).startswith(b"HTTP/1.1 200 "), "room again")
        for each in lazy:
            each.close()
        for _ in range(4):
            assert len(raw(address, ASKED)) > LARGE
