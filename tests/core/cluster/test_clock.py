"""The hybrid logical clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.clock import VOID, first_of, ms_of, tick

STAMPS = st.integers(0, VOID - 2)
MS = st.integers(0, ms_of(VOID) - 1)


@given(STAMPS, MS, STAMPS)
def test_a_stamp_is_above_the_clock_and_all_it_replaces(
    clock: int, now_ms: int, floor: int
) -> None:
    stamp = tick(clock, now_ms, floor)
    assert stamp > clock
    assert stamp > floor
    assert ms_of(stamp) >= now_ms


@given(MS, MS)
def test_a_clock_whose_wall_time_goes_back_goes_on(later_ms: int, now_ms: int) -> None:
    stamp = tick(0, later_ms + now_ms if later_ms + now_ms < ms_of(VOID) else later_ms)
    assert tick(stamp, now_ms) == max(stamp + 1, first_of(now_ms))


def test_a_full_counter_runs_over_into_the_milliseconds() -> None:
    assert tick(first_of(7) + 0xFFFF, 7) == first_of(8)


def test_a_stamp_shows_wall_time_when_nothing_is_ahead() -> None:
    assert tick(first_of(5), 9) == first_of(9)


def test_after_the_last_stamp_there_is_none() -> None:
    assert tick(VOID - 2, 0) == VOID - 1
    with pytest.raises(OverflowError, match="years ahead"):
        tick(VOID - 1, 0)
