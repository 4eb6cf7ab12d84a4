"""Which news ride on a message, and for how long."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.core.cluster.swim.records import Record, State, encoded_bytes
from edgeproxy.core.cluster.swim.rumours import Rumours
from edgeproxy.core.cluster.swim.tuning import MAX_RECORDS_BYTES, retransmits
from tests.core.cluster.swim.records import RECORDS
from tests.core.cluster.swim.simulation import record_of


def test_the_newest_about_a_member_replaces_what_was_to_be_told() -> None:
    rumours = Rumours()
    rumours.tell(record_of(1))
    rumours.tell(record_of(1).as_state(State.SUSPECT, "a"))
    assert rumours.pick(4) == (record_of(1).as_state(State.SUSPECT, "a"),)


def test_a_rumour_is_told_as_often_as_needed_and_then_dropped() -> None:
    rumours = Rumours()
    rumours.tell(record_of(1))
    told = [rumours.pick(4) for _ in range(6)]
    assert [len(each) for each in told] == [1, 1, 1, 1, 0, 0]
    assert not rumours


def test_those_told_least_go_first() -> None:
    rumours = Rumours()
    for number in range(100):
        rumours.tell(record_of(number))
    seen = {record.node_id for _ in range(20) for record in rumours.pick(50)}
    assert len(seen) == 100


def test_an_accusation_comes_first_and_stands_for_the_rumour() -> None:
    rumours = Rumours()
    rumours.tell(record_of(2))
    rumours.tell(record_of(1))
    accusation = record_of(1).as_state(State.SUSPECT, "a")
    assert rumours.pick(4, (accusation,)) == (accusation, record_of(2))


@given(st.lists(RECORDS, max_size=30))
@settings(max_examples=50)
def test_what_is_picked_fits_into_a_datagram(records: list[Record]) -> None:
    rumours = Rumours()
    for record in records:
        rumours.tell(record)
    assert len(rumours) == len({record.node_id for record in records})
    while picked := rumours.pick(2):
        assert sum(map(encoded_bytes, picked)) <= MAX_RECORDS_BYTES
        assert sum(len(msgspec.msgpack.encode(record)) for record in picked) <= MAX_RECORDS_BYTES


def test_larger_clusters_tell_more_often() -> None:
    assert [retransmits(size) for size in (1, 3, 9, 10, 99, 100)] == [4, 4, 4, 8, 8, 12]
