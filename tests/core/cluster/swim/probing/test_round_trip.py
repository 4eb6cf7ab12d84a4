"""What answers say about a path."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.swim.probing.round_trip import RoundTrip


def test_before_the_first_answer_a_ping_is_sent_again_late() -> None:
    assert RoundTrip().resend_secs() == 0.4
    assert RoundTrip().offset_ms() is None


def test_a_steady_path_is_waited_for_little_longer_than_it_takes() -> None:
    path = RoundTrip()
    for _ in range(40):
        path.take(0.2, 0.0)
    assert 0.2 <= path.resend_secs() < 0.21
    assert path.secs is not None
    assert abs(path.secs - 0.2) < 1e-6


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_the_pause_stays_within_its_bounds(samples: list[float]) -> None:
    path = RoundTrip()
    for secs in samples:
        path.take(secs, 0.0)
        assert 0.1 <= path.resend_secs() <= 0.4


def test_the_clock_is_read_from_the_fastest_of_the_last_answers() -> None:
    path = RoundTrip()
    path.take(0.05, -600_000)
    path.take(0.80, -599_700)
    assert path.offset_ms() == -600_000
    for _ in range(8):
        path.take(0.06, 3)
    assert path.offset_ms() == 3
