"""Times fall into the bucket whose bound they do not exceed."""

from __future__ import annotations

from edgeproxy.core.backends.counters import RTT_BUCKETS_SECS, BackendCounters


def test_times_fall_into_their_buckets() -> None:
    counters = BackendCounters()
    for secs in (0.0, 0.0005, 0.0006, 0.02, 5.0, 60.0):
        counters.answered(secs)
    counts = dict(zip((*RTT_BUCKETS_SECS, "more"), counters.rtt, strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {
        0.0005: 1,
        0.001: 1,
        0.025: 1,
        5.0: 1,
        "more": 1,
    }
    assert counters.connections == 6  # nobody waited for one of them
    assert counters.rtt_secs == sum((0.0, 0.0005, 0.0006, 0.02, 5.0, 60.0))
