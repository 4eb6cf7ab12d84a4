"""What waits is bounded at both ends, whatever the other one does."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.sessions.flow import Inflow, Outflow

WINDOW = 100
LARGEST = 75
LIMIT = 250


@given(st.lists(st.integers(1, LARGEST) | st.just(0), max_size=200))
def test_frames_arrive_in_order_and_nothing_waits_beyond_its_limit(
    sizes: list[int],
) -> None:
    outflow, inflow = Outflow(LIMIT, WINDOW), Inflow(WINDOW)
    accepted: list[bytes] = []
    dealt_with: list[bytes] = []
    under_way: deque[bytes] = deque()
    for number, size in enumerate(sizes):
        if size:
            frame = bytes([number % 256]) * size
            if outflow.offer(frame):
                accepted.append(frame)
            while (sent := outflow.take()) is not None:
                under_way.append(sent)
        elif under_way:
            assert inflow.add(under_way.popleft())
            dealt_with.append(inflow.take())
            credit = inflow.due_credit()
            assert credit is None or outflow.credit(credit)
        assert outflow.waiting_bytes <= LIMIT
        assert sum(map(len, under_way)) <= WINDOW
    assert dealt_with == accepted[: len(dealt_with)]


@given(st.lists(st.integers(1, LARGEST), min_size=1, max_size=100))
def test_all_frames_get_through_if_the_receiver_goes_on(sizes: list[int]) -> None:
    outflow, inflow = Outflow(10_000, WINDOW), Inflow(WINDOW)
    frames = [bytes(size) for size in sizes]
    assert all(outflow.offer(frame) for frame in frames)
    arrived = []
    while (frame := outflow.take()) is not None:
        assert inflow.add(frame)
        arrived.append(inflow.take())
        credit = inflow.due_credit()
        assert credit is None or outflow.credit(credit)
    assert arrived == frames


def test_a_frame_is_refused_when_the_queue_is_full() -> None:
    outflow = Outflow(LIMIT, WINDOW)
    assert [outflow.offer(bytes(70)) for _ in range(4)] == [True, True, True, False]
    assert not outflow.offer(bytes(41))
    assert outflow.offer(bytes(40))


def test_a_peer_that_gives_no_credit_gets_no_more_than_the_window() -> None:
    outflow = Outflow(LIMIT, WINDOW)
    for _ in range(5):
        assert outflow.offer(bytes(50))
    assert [outflow.take(), outflow.take(), outflow.take()] == [bytes(50), bytes(50), None]
    assert outflow.credit(50)
    assert outflow.take() == bytes(50)


def test_credit_for_what_was_never_sent_and_credit_taken_back_are_found_out() -> None:
    outflow = Outflow(LIMIT, WINDOW)
    assert outflow.offer(bytes(50))
    assert not outflow.credit(1)
    outflow.take()
    assert outflow.credit(30)
    assert not outflow.credit(29)
    assert not outflow.credit(51)


def test_a_peer_that_ignores_the_credit_is_found_out() -> None:
    inflow = Inflow(WINDOW)
    assert inflow.add(bytes(60))
    assert not inflow.add(bytes(41))
    inflow.take()
    assert not inflow.add(bytes(41)), "it has not been told of the credit"
    assert inflow.due_credit() == 60
    assert inflow.add(bytes(100))


def test_credit_is_told_a_quarter_of_the_window_at_a_time() -> None:
    inflow = Inflow(WINDOW)
    told = []
    for _ in range(30):
        assert inflow.add(bytes(10))
        inflow.take()
        told.append(inflow.due_credit())
    assert [each for each in told if each is not None] == list(range(30, 301, 30))
