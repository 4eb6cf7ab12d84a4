"""Messages of membership: fixed bytes, forwards and backwards compatible, and total decoding."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.core.cluster.swim.messages import (
    Ack,
    Gossip,
    Message,
    Nack,
    Page,
    Ping,
    PingRequest,
    Pull,
)
from edgeproxy.core.cluster.swim.records import Address, Record
from edgeproxy.core.cluster.swim.rumours import Rumours
from edgeproxy.core.cluster.swim.tuning import MAX_ID_BYTES, MAX_RECORDS_BYTES
from edgeproxy.errors import WireError
from edgeproxy.wire.gossip import MAX_BYTES, decode, encode
from tests.core.cluster.swim.records import IDS, RECORDS, U32

FRA = Record("fra-1", 7, 2, 0, "eu", Address("192.0.2.1", 4001), Address("2001:db8::1", 4002), 1, 3)
GRU = FRA.as_state(1)  # type: ignore[arg-type]

VERSION_1: dict[str, tuple[Message, str]] = {
    "ping": (
        Ping("fra-1", "gru-1", 9, 1, 1_700_000_000_000, b"head", (FRA,)),
        (
            "9801a56672612d31a56772752d310901cf0000018bcfe56800c40468656164919ba56672612d"
            "31070200a2657592a93139322e302e322e31cd0fa192ab323030313a6462383a3a31cd0fa201"
            "03a000"
        ),
    ),
    "ack": (
        Ack("gru-1", 9, 1, 1_700_000_000_000, 1_700_000_000_050, b"h"),
        "9802a56772752d310901cf0000018bcfe56800cf0000018bcfe56832c4016890",
    ),
    "ping request": (PingRequest("fra-1", "gru-1", 10), "9503a56672612d31a56772752d310a90"),
    "nack": (Nack("nrt-1", 10), "9304a56e72742d310a"),
    "gossip": (
        Gossip("fra-1", (GRU,)),
        (
            "9305a56672612d31919ba56672612d31070201a2657592a93139322e302e322e31cd0fa192ab"
            "323030313a6462383a3a31cd0fa20103a000"
        ),
    ),
    "pull": (Pull("fra-1", 11, "gru-1", (), b"\0\0"), "9606a56672612d310ba56772752d3190c4020000"),
    "page": (
        Page("fra-1", 11, "", (FRA,)),
        (
            "9507a56672612d310ba0919ba56672612d31070200a2657592a93139322e302e322e31cd0fa1"
            "92ab323030313a6462383a3a31cd0fa20103a000"
        ),
    ),
}
"""Every version has to send, and understand, exactly this."""


@pytest.mark.parametrize("name", VERSION_1)
def test_messages_are_these_bytes_in_every_version(name: str) -> None:
    message, golden = VERSION_1[name]
    assert encode(message).hex() == golden
    assert decode(bytes.fromhex(golden)) == message


def changed(encoded: bytes, change: object) -> bytes:
    elements = msgspec.msgpack.decode(encoded)
    change(elements)  # type: ignore[operator]
    return msgspec.msgpack.encode(elements)


@pytest.mark.parametrize("name", VERSION_1)
def test_fields_of_a_later_version_are_skipped(name: str) -> None:
    message, _ = VERSION_1[name]

    def add(elements: list[object]) -> None:
        for each in elements:
            if isinstance(each, list):
                for record in each:
                    record.extend(["new", {"of": [1, 2]}])
        elements.append({"new": b"field"})

    assert decode(changed(encode(message), add)) == message


def test_fields_that_an_earlier_version_does_not_send_have_defaults() -> None:
    assert decode(msgspec.msgpack.encode([1, "a", "b", 1, 0, 5])) == Ping("a", "b", 1, 0, 5)
    short = [3, "a", "b", 1, [["c", 1, 0, 0, "eu", ["192.0.2.1", 1], ["192.0.2.1", 2]]]]
    message = decode(msgspec.msgpack.encode(short))
    assert isinstance(message, PingRequest)
    assert message.records[0].proto_max == 1


def test_a_state_of_a_later_version_does_not_spoil_the_message() -> None:
    record = msgspec.structs.replace(FRA, state=17)
    message = decode(encode(Gossip("a", (record, FRA))))
    assert isinstance(message, Gossip)
    assert [each.state for each in message.records] == [17, 0]


def gossip_with(**fields: object) -> bytes:
    return encode(Gossip("a", (msgspec.structs.replace(FRA, **fields),)))


@pytest.mark.parametrize(
    ("encoded", "error"),
    [
        (b"", "no MessagePack"),
        (b"\xc1", "no MessagePack"),
        (b"\x91" * 1000, "MessagePack|wrong kind"),
        (encode(Nack("a", 1)) + b"\0", "no MessagePack"),
        (msgspec.msgpack.encode([99, "a"]), "wrong kind"),
        (msgspec.msgpack.encode([4, "a", "1"]), "wrong kind"),
        (msgspec.msgpack.encode({"from_id": "a"}), "wrong kind"),
        (b"\0" * (MAX_BYTES + 1), "too long"),
        (encode(Nack("", 1)), "id is empty or too long"),
        (encode(Nack("x" * (MAX_ID_BYTES + 1), 1)), "id is empty or too long"),
        (encode(Nack("ü", 1)), "printable ASCII"),
        (encode(Nack("a\nb", 1)), "printable ASCII"),
        (encode(Nack("a", -1)), "out of range"),
        (encode(Ping("a", "b", 1, -1, 0)), "out of range"),
        (encode(Ping("a", "b", 1, 0, 2**64 - 1)), "out of range"),
        (encode(Ping("a", "", 1, 0, 0)), "id is empty"),
        (encode(Ping("a", "b", 1, 0, 0, b"x" * 65)), "shows too much"),
        (encode(PingRequest("a", "", 1)), "id is empty"),
        (encode(Page("a", 1, "\0")), "printable ASCII"),
        (gossip_with(region="x" * 33), "region"),
        (gossip_with(accuser="ü"), "printable ASCII"),
        (gossip_with(instance=-1), "instance"),
        (gossip_with(incarnation=2**32), "incarnation"),
        (gossip_with(age_secs=-1), "out of range"),
        (gossip_with(state=-1), "out of range"),
        (gossip_with(gossip=Address("192.0.2.1", 0)), "one host"),
        (gossip_with(gossip=Address("www.example.com", 1)), "one host"),
        (gossip_with(gossip=Address("224.0.0.1", 1)), "one host"),
        (gossip_with(gossip=Address("ff02::1", 1)), "one host"),
        (gossip_with(transport=Address("fe80::1%eth0", 1)), "one host"),
        (gossip_with(transport=Address("2001:DB8::1", 1)), "one host"),
    ],
)
def test_what_is_wrong_is_refused(encoded: bytes, error: str) -> None:
    with pytest.raises(WireError, match=error):
        decode(encoded)


RECORD_LISTS = st.lists(RECORDS, max_size=3).map(tuple)
PAYLOADS = st.binary(max_size=64)
MESSAGES = st.one_of(
    st.builds(Ping, IDS, IDS, U32, U32, U32, PAYLOADS, RECORD_LISTS),
    st.builds(Ack, IDS, U32, U32, U32, U32, PAYLOADS, RECORD_LISTS),
    st.builds(PingRequest, IDS, IDS, U32, RECORD_LISTS),
    st.builds(Nack, IDS, U32),
    st.builds(Gossip, IDS, RECORD_LISTS),
    st.builds(Pull, IDS, U32, st.one_of(st.just(""), IDS), RECORD_LISTS, st.binary(max_size=50)),
    st.builds(Page, IDS, U32, st.one_of(st.just(""), IDS), RECORD_LISTS),
)


@given(MESSAGES)
@settings(max_examples=100)
def test_a_message_survives(message: Message) -> None:
    try:
        encoded = encode(message)
    except WireError:
        assert len(msgspec.msgpack.encode(message)) > MAX_BYTES
        return
    assert decode(encoded) == message


@given(st.lists(RECORDS, min_size=1, max_size=30), IDS)
@settings(max_examples=50)
def test_as_much_news_as_is_picked_fits_into_the_longest_message(
    records: list[Record], node_id: str
) -> None:
    rumours = Rumours()
    for record in records:
        rumours.tell(record)
    longest = "x" * MAX_ID_BYTES
    numbers = (2**32 - 1, 20, 2**48)
    ping = Ping(longest, longest, *numbers, b"x" * 64, rumours.pick(1))
    assert len(encode(ping)) <= MAX_BYTES
    padding = bytes(MAX_RECORDS_BYTES)
    assert len(encode(Pull(node_id, 1, longest, (), padding))) <= MAX_BYTES


@given(st.binary(max_size=1300))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    try:
        decode(data)
    except WireError:
        pass


def test_a_hundred_thousand_mutated_messages_are_messages_or_wire_errors() -> None:
    rng = random.Random(1)
    seeds = [bytes.fromhex(golden) for _, golden in VERSION_1.values()]
    kinds = {"message": 0, "error": 0}
    for _ in range(100_000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.getrandbits(8)
        try:
            decode(bytes(data))
            kinds["message"] += 1
        except WireError:
            kinds["error"] += 1
    assert min(kinds.values()) > 1000, kinds
