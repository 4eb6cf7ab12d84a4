"""Messages of membership as the inside of a datagram: MessagePack, one array a message.

The first element says which message it is, the others are its fields in the order of
`core/cluster/swim/messages`. Elements that are too many are of a later version and are skipped;
those at the end that are missing take their defaults. A message of an unknown kind is an error, and
harmless: whoever sends new kinds also understands those who do not answer.

Whoever holds the key of the cluster may send anything: so everything is checked that others go by.
"""

from __future__ import annotations

import msgspec

from edgeproxy.core.cluster.swim.messages import Ack, Message, Nack, Page, Ping, PingRequest, Pull
from edgeproxy.core.cluster.swim.records import Record, is_of_one_host
from edgeproxy.core.cluster.swim.tuning import (
    MAX_ID_BYTES,
    MAX_INCARNATION,
    MAX_PAYLOAD_BYTES,
    MAX_REGION_BYTES,
)
from edgeproxy.errors import WireError

MAX_BYTES = 1136
"""A datagram of 1,200 bytes, which every path carries whole, without its seal."""

MAX_NUMBER = 2**63 - 1
MAX_STATE = 127

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return a message as bytes. Raises WireError if it is too long for a datagram."""
    encoded = _encoder.encode(message)
    if len(encoded) > MAX_BYTES:
        raise WireError("a message of membership is too long")
    return encoded


def decode(received: bytes | memoryview) -> Message:
    """Return the message that bytes stand for. Raises WireError."""
    if len(received) > MAX_BYTES:
        raise WireError("a message of membership is too long")
    try:
        message = _decoder.decode(received)
    except msgspec.ValidationError:
        raise WireError("a message of membership has fields of a wrong kind") from None
    except (msgspec.DecodeError, RecursionError):
        raise WireError("a message of membership is no MessagePack") from None
    _check_id(message.from_id)
    _check_fields(message)
    if not isinstance(message, Nack):
        for record in message.records:
            _check_record(record)
    return message


def _check_fields(message: Message) -> None:
    if isinstance(message, Ping):
        _check_id(message.to_id)
        _check_payload(message.payload)
        _check_numbers(message.seq, message.attempt, message.wall_ms)
    elif isinstance(message, Ack):
        _check_payload(message.payload)
        _check_numbers(message.seq, message.attempt, message.ping_wall_ms, message.wall_ms)
    elif isinstance(message, PingRequest):
        _check_id(message.target_id)
        _check_numbers(message.seq)
    elif isinstance(message, Nack):
        _check_numbers(message.seq)
    elif isinstance(message, Pull | Page):
        if message.after:
            _check_id(message.after)
        _check_numbers(message.seq)


def _check_record(record: Record) -> None:
    _check_id(record.node_id)
    if record.accuser:
        _check_id(record.accuser)
    if not _is_plain(record.region) or len(record.region) > MAX_REGION_BYTES:
        raise WireError("a record of membership has a region that is too long or not plain")
    if not is_of_one_host(record.gossip):
        raise WireError("a gossip address is not that of one host in its plain form")
    if not is_of_one_host(record.transport):
        raise WireError("a transport address is not that of one host in its plain form")
    if not 0 <= record.instance < 2**64:
        raise WireError("a record of membership has an instance out of range")
    if not 0 <= record.incarnation <= MAX_INCARNATION:
        raise WireError("a record of membership has an incarnation out of range")
    if not 0 <= record.state <= MAX_STATE:
        raise WireError("a record of membership has a state out of range")
    _check_numbers(record.proto_min, record.proto_max, record.age_secs)


def _check_id(node_id: str) -> None:
    if not node_id or len(node_id) > MAX_ID_BYTES:
        raise WireError("a node id is empty or too long")
    if not _is_plain(node_id):
        raise WireError("a node id is not of printable ASCII characters")


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _check_payload(payload: bytes) -> None:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise WireError("a message of membership shows too much")


def _check_numbers(*numbers: int) -> None:
    if min(numbers) < 0 or max(numbers) > MAX_NUMBER:
        raise WireError("a number is out of range")
