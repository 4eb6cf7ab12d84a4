"""The token bucket is exact: no rate is lost to rounding, none is won by asking oddly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.admission.rate_limit import RateLimit, RateLimitSettings


def limit(**settings: float) -> RateLimit:
    return RateLimit(RateLimitSettings(enabled=True, **settings))  # type: ignore[arg-type]


def test_a_new_client_starts_with_the_burst_and_no_more() -> None:
    bucket = limit(max_requests=100, burst=10)
    assert [bucket.take("a", 5.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert bucket.remaining("a", 5.0) == 0
    assert bucket.remaining("b", 5.0) == 10


def test_a_pause_gives_the_burst_back_and_never_more() -> None:
    bucket = limit(max_requests=100, burst=10)
    for _ in range(10):
        assert bucket.take("a", 0.0)
    assert bucket.remaining("a", 0.05) == 5
    assert bucket.remaining("a", 1000.0) == 10
    assert sum(bucket.take("a", 1000.0) for _ in range(20)) == 10


def test_whoever_is_refused_pays_nothing_for_asking() -> None:
    bucket = limit(max_requests=1, burst=1)
    assert bucket.take("a", 0.0)
    assert not any(bucket.take("a", n / 1000) for n in range(1, 1000))
    assert bucket.take("a", 1.0)


@given(
    rate=st.integers(1, 2000),
    window=st.floats(0.01, 100),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 0.4), min_size=1, max_size=300),
    start=st.floats(0, 1e7),
)
def test_any_span_gives_the_burst_and_the_rate(
    rate: int, window: float, burst: int, pauses: list[float], start: float
) -> None:
    bucket = limit(max_requests=rate, window_secs=window, burst=burst)
    now, passed = start, 0
    for pause in pauses:
        now += pause
        while passed < 10_000 and bucket.take("a", now):
            passed += 1
        earned = burst + (now - start) * rate / window
        assert passed <= earned + 0.5
        full = min(burst + (now - start) * rate / window, 10_000)
        refilled_since = pause * rate / window
        if refilled_since <= burst:  # nothing ran over
            assert bucket.remaining("a", now) == 0
            assert passed >= min(full, burst) - 0.5


def test_a_hundred_a_second_is_a_hundred_however_it_is_asked() -> None:
    for pause in (0.0011, 0.003, 0.007, 0.0099):
        bucket = limit(max_requests=100, burst=10)
        passed = sum(bucket.take("a", 1e6 + n * pause) for n in range(int(60 / pause)))
        assert abs(passed - (10 + 60 * 100)) <= 4


def test_the_table_is_bounded_and_the_longest_unseen_makes_room() -> None:
    bucket = limit(max_requests=1, burst=1, max_clients=3)
    for name in "abcd":
        assert bucket.take(name, 0.0)
    assert len(bucket) == 3
    assert bucket.take("a", 0.0)
    assert not bucket.take("d", 0.0)


def test_full_buckets_are_forgotten() -> None:
    bucket = limit(max_requests=1, burst=2)
    for n in range(5):
        bucket.take(str(n), float(n))
    assert bucket.sweep(3.5) == 3
    assert len(bucket) == 2
    assert bucket.sweep(100.0) == 2


def changed(bucket: RateLimit, **settings: float) -> None:
    bucket.change(RateLimitSettings(enabled=True, **settings))  # type: ignore[arg-type]


def test_a_higher_rate_frees_at_once_whom_the_lower_one_held_back() -> None:
    bucket = limit(max_requests=1, window_secs=3600, burst=3)
    assert [bucket.take("a", 100.0) for _ in range(4)] == [True] * 3 + [False]
    changed(bucket, max_requests=1000, burst=3)
    assert bucket.remaining("a", 100.0) == 0
    assert not bucket.take("a", 100.0)
    assert bucket.take("a", 100.001)
    assert bucket.remaining("a", 100.01) == 3


def test_what_a_bucket_lacks_is_kept_in_tokens() -> None:
    bucket = limit(max_requests=1, burst=10)
    assert [bucket.take("a", 100.0) for _ in range(4)] == [True] * 4
    for rate in (1000, 1, 50):
        changed(bucket, max_requests=rate, burst=10)
        assert bucket.remaining("a", 100.0) == 6


def test_nobody_lacks_more_than_the_new_bucket_holds() -> None:
    bucket = limit(max_requests=1, burst=100)
    assert sum(bucket.take("a", 100.0) for _ in range(100)) == 100
    changed(bucket, max_requests=1, burst=2)
    assert [bucket.remaining("a", now) for now in (100.0, 101.0, 102.0, 109.0)] == [0, 1, 2, 2]


def test_a_change_counts_from_when_anybody_was_last_seen() -> None:
    bucket = limit(max_requests=1, burst=10)
    assert sum(bucket.take("a", 100.0) for _ in range(10)) == 10
    bucket.sweep(105.0)
    changed(bucket, max_requests=1, window_secs=10, burst=10)
    assert bucket.remaining("a", 105.0) == 5
    assert bucket.remaining("a", 115.0) == 6


def test_fewer_clients_are_remembered_at_once() -> None:
    bucket = limit(max_requests=1, burst=1, max_clients=10)
    for name in "abcdef":
        assert bucket.take(name, 0.0)
    changed(bucket, max_requests=1, burst=1, max_clients=2)
    assert len(bucket) == 2
    assert not bucket.take("f", 0.0)
    assert bucket.take("a", 0.0)
