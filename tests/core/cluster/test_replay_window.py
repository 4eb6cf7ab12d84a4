"""Each number is taken once, whatever comes in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.replay_window import WINDOW, ReplayWindow


@given(st.lists(st.one_of(st.integers(0, 3000), st.integers(0, 2**64 - 1)), max_size=200))
def test_no_number_is_taken_twice_and_none_is_refused_without_reason(numbers: list[int]) -> None:
    window, taken = ReplayWindow(), set[int]()
    for number in numbers:
        is_fresh = number not in taken
        is_recent = not taken or number > max(taken) - WINDOW
        assert window.is_new(number) == (is_fresh and is_recent)
        if window.is_new(number):
            window.take(number)
            taken.add(number)


def test_as_many_as_the_window_holds_may_come_in_any_order() -> None:
    window = ReplayWindow()
    window.take(WINDOW)
    for number in range(1, WINDOW):
        assert window.is_new(number)
        window.take(number)
    assert not any(window.is_new(number) for number in range(WINDOW + 1))


def test_it_does_not_grow() -> None:
    window = ReplayWindow()
    for number in range(0, 100_000, 7):
        window.take(number)
    assert window._seen.bit_length() <= WINDOW
