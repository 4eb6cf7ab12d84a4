"""In which order members are probed, and what a probe measures."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.swim.probing.probe import Probe, ProbeOrder


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_each_is_probed_once_a_round(seed: int, size: int) -> None:
    order = ProbeOrder(random.Random(seed))
    live = [f"node-{number}" for number in range(size)]
    for _ in range(3):
        assert sorted(str(order.next(live)) for _ in live) == sorted(live)


def test_those_that_are_gone_are_passed_over_and_new_ones_come_in_this_round() -> None:
    order = ProbeOrder(random.Random(1))
    live = ["a", "b", "c"]
    first = str(order.next(live))
    order.add("d")
    live.remove(first)
    live.append("d")
    assert {order.next(live) for _ in range(3)} == set(live)


def test_a_suspect_is_probed_next() -> None:
    order = ProbeOrder(random.Random(1))
    live = [f"node-{number}" for number in range(50)]
    order.next(live)
    order.hasten("node-7")
    assert order.next(live) == "node-7"


def test_nobody_is_probed_where_nobody_is() -> None:
    assert ProbeOrder(random.Random(1)).next([]) is None


def test_each_ping_of_a_probe_has_its_own_round_trip() -> None:
    probe = Probe("a", 1, 100.0, 1.0, 0.1)
    assert probe.sent(100.0) == 0
    assert probe.send_at == 100.1
    assert probe.sent(100.1) == 1
    assert round(probe.send_at, 3) == 100.3
    for at in (100.3, 100.7):
        probe.sent(at)
        assert round(probe.send_at - at, 3) == 0.4
    assert probe.round_trip_secs(0, 100.25) == 0.25
    assert round(probe.round_trip_secs(1, 100.25) or 0, 3) == 0.15
    assert probe.round_trip_secs(4, 100.25) is None


def test_a_standstill_gives_more_time_and_is_no_round_trip() -> None:
    probe = Probe("a", 1, 100.0, 1.0, 0.1)
    probe.sent(100.0)
    probe.excuse(0.7)
    assert probe.ends_at == 101.7
    assert probe.round_trip_secs(0, 100.8) is None
    assert probe.sent(101.0) == 1
    assert probe.round_trip_secs(1, 101.5) == 0.5
