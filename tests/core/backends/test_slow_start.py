"""Slow start: the share of a backend grows from the least to all of its weight."""

from __future__ import annotations

from edgeproxy.core.backends.slow_start import ADVANCED_AT_ONCE, LEAST_SHARE, SlowStarts, share


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


def test_of_very_many_each_has_its_turn_and_no_turn_is_long() -> None:
    """As when the whole network of a POP comes back."""
    starts = SlowStarts()
    names = [str(number) for number in range(ADVANCED_AT_ONCE * 3 - 1)]
    for name in names:
        starts.begin(name, 100.0)
    for now, expected in ((105.0, 0.5), (110.0, 1.0)):
        turns = [starts.advance(10.0, now) for _ in range(3)]
        assert max(map(len, turns)) <= ADVANCED_AT_ONCE
        told = dict(each for turn in turns for each in turn)
        assert told == dict.fromkeys(names, expected)
    assert starts.advance(10.0, 111.0) == []
