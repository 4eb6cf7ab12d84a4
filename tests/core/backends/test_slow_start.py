"""Slow start: the share of a backend grows from the least to all of its weight."""

from __future__ import annotations

from edgeproxy.core.backends.slow_start import LEAST_SHARE, SlowStarts, share


def test_a_ramp_begins_low_and_ends_at_the_full_share() -> None:
    assert [share(100, 10, 100 + n) for n in (0, 5, 10, 20)] == [LEAST_SHARE, 0.5, 1.0, 1.0]
    assert share(100, 0, 100) == 1.0


def test_a_backend_is_reported_until_it_has_its_full_share() -> None:
    starts = SlowStarts()
    starts.begin("a", 100.0)
    starts.begin("b", 100.0)
    starts.cancel("b")
    assert starts.advance(10.0, 105.0) == [("a", 0.5)]
    assert starts.advance(10.0, 110.0) == [("a", 1.0)]
    assert starts.advance(10.0, 115.0) == []


def test_without_slow_start_a_backend_has_its_full_share_at_once() -> None:
    starts = SlowStarts()
    starts.begin("a", 100.0)
    assert starts.advance(0.0, 100.0) == [("a", 1.0)]
