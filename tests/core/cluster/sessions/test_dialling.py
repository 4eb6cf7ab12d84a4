"""Dials back off, and do not come all at once."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.sessions.dialling import (
    DIALS_PER_SEC,
    LONGEST_PAUSE_SECS,
    DialRate,
    pause_secs,
)


def test_the_first_dial_does_not_wait() -> None:
    assert pause_secs(0, Random(1)) == 0.0


@given(st.integers(1, 10_000), st.randoms(use_true_random=False))
def test_a_pause_is_bounded(failures: int, rng: Random) -> None:
    assert 0 <= pause_secs(failures, rng) <= min(0.5 * 2 ** min(failures, 20), LONGEST_PAUSE_SECS)


def test_pauses_grow_and_use_all_of_their_range() -> None:
    rng = Random(1)
    for failures, bound in ((1, 0.5), (2, 1.0), (5, 8.0), (7, 30.0), (500, 30.0)):
        pauses = [pause_secs(failures, rng) for _ in range(1000)]
        assert max(pauses) > 0.95 * bound
        assert min(pauses) < 0.05 * bound


@given(st.lists(st.floats(0, 1), min_size=1, max_size=100))
def test_no_second_has_more_dials_than_allowed(pauses: list[float]) -> None:
    rate, now, dials = DialRate(), 0.0, []
    for pause in pauses:
        now += pause
        dials.append(rate.next_at(now))
        assert dials[-1] >= now
    for first, later in zip(dials, dials[DIALS_PER_SEC:], strict=False):
        assert later - first > 0.999
