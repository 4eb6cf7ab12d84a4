"""Records of one member are ordered, and of a size that is known before they are encoded."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.swim.records import (
    Address,
    Record,
    State,
    encoded_bytes,
    fits,
    next_instance,
)
from edgeproxy.core.cluster.swim.tuning import MAX_ID_BYTES
from tests.core.cluster.swim.records import IDS, RECORDS
from tests.core.cluster.swim.simulation import record_of


@given(RECORDS)
def test_the_size_of_a_record_is_what_it_takes_in_a_message(record: Record) -> None:
    assert encoded_bytes(record) == len(msgspec.msgpack.encode(record))


@given(RECORDS)
def test_a_refutation_beats_what_it_refutes_whatever_that_says(record: Record) -> None:
    assert record.refuting(record.incarnation).key > record.key
    assert record.refuting(record.incarnation).state == State.ALIVE


def test_a_new_start_beats_every_state_of_the_one_before() -> None:
    left = msgspec.structs.replace(record_of(1, instance=1), incarnation=99, state=State.LEFT)
    assert record_of(1, instance=2).key > left.key


@given(IDS)
def test_ids_within_the_limit_fit(node_id: str) -> None:
    assert fits(msgspec.structs.replace(record_of(1), node_id=node_id))


def test_ids_that_others_would_refuse_do_not_fit() -> None:
    for node_id in ("", "x" * (MAX_ID_BYTES + 1), "ü", "a\n"):
        assert not fits(msgspec.structs.replace(record_of(1), node_id=node_id))


def test_an_address_that_leads_nowhere_in_particular_does_not_fit() -> None:
    for host in ("224.0.0.1", "ff02::1", "pop1", "2001:DB8::1", "fe80::1%eth0", ""):
        address = Address(host, 4001)
        assert not fits(msgspec.structs.replace(record_of(1), gossip=address)), host
        assert not fits(msgspec.structs.replace(record_of(1), transport=address)), host
    assert not fits(msgspec.structs.replace(record_of(1), gossip=Address("192.0.2.1", 0)))


@given(st.integers(0, 2**62), st.integers(0, 2**45), st.integers(0, 2**20))
def test_an_instance_grows_with_every_start_also_if_the_clock_went_back(
    previous: int, wall_ms: int, bits: int
) -> None:
    assert previous < next_instance(previous, wall_ms, bits) < 2**64


def test_two_clones_of_a_disk_get_different_instances() -> None:
    assert next_instance(5, 1_700_000_000_000, 1) != next_instance(5, 1_700_000_000_000, 2)


def test_an_address_of_version_6_is_shown_in_brackets() -> None:
    assert str(Address("2001:db8::1", 4001)) == "[2001:db8::1]:4001"
    assert str(Address("192.0.2.1", 4001)) == "192.0.2.1:4001"


def test_a_member_that_listens_everywhere_is_reached_where_its_datagrams_come_from() -> None:
    everywhere = Address("0.0.0.0", 4001)
    told = msgspec.structs.replace(record_of(1), gossip=everywhere)
    assert not told.has_addresses
    known = told.reached_at(Address("192.0.2.7", 9))
    assert (known.gossip, known.transport) == (Address("192.0.2.7", 4001), told.transport)
    assert known.reached_at(Address("192.0.2.8", 9)) == known
