"""Pings on behalf of others."""

from __future__ import annotations

from edgeproxy.core.cluster.swim.probing.relays import Relay, Relays
from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.core.cluster.swim.tuning import MAX_MEMBERS

ASKER = Address("192.0.2.1", 4001)
RELAY = Relay(ASKER, 7, "target", 10.0)


def test_an_answer_is_passed_on_once_and_only_that_of_the_target() -> None:
    relays = Relays()
    assert relays.begin(1, RELAY)
    assert relays.answered(1, "another") is None
    assert relays.answered(2, "target") is None
    assert relays.answered(1, "target") == RELAY
    assert relays.answered(1, "target") is None


def test_that_there_is_no_answer_is_said_once() -> None:
    relays = Relays()
    relays.begin(1, RELAY)
    assert relays.to_refuse(9.9) == []
    assert relays.to_refuse(10.0) == [RELAY]
    assert relays.to_refuse(10.1) == []
    assert relays.answered(1, "target") is None


def test_there_is_a_most_and_a_standstill_forgets_all() -> None:
    relays = Relays()
    assert all(relays.begin(seq, RELAY) for seq in range(MAX_MEMBERS))
    assert not relays.begin(-1, RELAY)
    relays.clear()
    assert relays.to_refuse(11.0) == []
