"""What two nodes of a cluster say on the stream of their session, besides what it carries.

    word u32: kind 8 bits, length 24 bits    body

The kind of a `DATA` frame is 0, so its word is the length of its body. `HELLO` and `AUTH` open a
session: they are MessagePack arrays, of which a newer node may send more elements than are known
here. `JOIN` says that this is the session of the two nodes; `CREDIT` how many bytes of `DATA`
frames, words included, its sender has dealt with since the session began. Every length has a cap,
which is checked before the body is waited for.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, NamedTuple

import msgspec

from edgeproxy.errors import WireError

MAX_DATA_BYTES = 1 << 20
NONCE_BYTES = 32
CLUSTER_BYTES = 16
KEY_ID_BYTES = 4
MAC_BYTES = 32

_HEADER_BYTES = 4
_LENGTH_BITS = 24
_CREDIT_BYTES = 8


class Kind(IntEnum):
    """What a frame is."""

    DATA = 0
    HELLO = 1
    AUTH = 2
    JOIN = 3
    CREDIT = 4


_LONGEST = {
    Kind.DATA: MAX_DATA_BYTES,
    Kind.HELLO: 256,
    Kind.AUTH: 64,
    Kind.JOIN: 0,
    Kind.CREDIT: _CREDIT_BYTES,
}


class Frame(NamedTuple):
    """The start of a frame: its kind, and how many bytes it has with its word."""

    kind: Kind
    size: int


Version = Annotated[int, msgspec.Meta(ge=1, le=65535)]
NodeId = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,64}\Z")]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Who speaks.

    Attributes:
        min_version: The oldest version of the protocol that it speaks.
        max_version: The newest one.
        cluster: A hash of the name of its cluster.
        node_id: Printable ASCII without spaces.
        nonce: Random bytes.
    """

    min_version: Version
    max_version: Version
    cluster: Annotated[bytes, msgspec.Meta(min_length=CLUSTER_BYTES, max_length=CLUSTER_BYTES)]
    node_id: NodeId
    nonce: Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Auth(msgspec.Struct, frozen=True, array_like=True):
    """The proof that the speaker has a key of the cluster, and which one."""

    key_id: Annotated[bytes, msgspec.Meta(min_length=KEY_ID_BYTES, max_length=KEY_ID_BYTES)]
    mac: Annotated[bytes, msgspec.Meta(min_length=MAC_BYTES, max_length=MAC_BYTES)]


_ENCODER = msgspec.msgpack.Encoder()
_HELLO = msgspec.msgpack.Decoder(Hello)
_AUTH = msgspec.msgpack.Decoder(Auth)


def frame(kind: Kind, body: bytes = b"") -> bytes:
    """Return a frame. Raises WireError for a body that is too long."""
    if len(body) > _LONGEST[kind]:
        raise WireError(f"a frame of {len(body)} bytes is too long: at most {_LONGEST[kind]}")
    return (kind << _LENGTH_BITS | len(body)).to_bytes(_HEADER_BYTES) + body


def frame_start(received: bytes | bytearray) -> Frame | None:
    """Return what the frame at the start of `received` is; None while its word is incomplete.

    Raises WireError for an unknown kind and for a length that is not allowed.
    """
    if len(received) < _HEADER_BYTES:
        return None
    word = int.from_bytes(received[:_HEADER_BYTES])
    try:
        kind = Kind(word >> _LENGTH_BITS)
    except ValueError:
        raise WireError("the frame is of an unknown kind") from None
    length = word & ((1 << _LENGTH_BITS) - 1)
    if length > _LONGEST[kind]:
        raise WireError("the frame is longer than its kind allows")
    return Frame(kind, _HEADER_BYTES + length)


def body(of: bytes) -> bytes:
    """Return the body of a complete frame."""
    return of[_HEADER_BYTES:]


def hello(value: Hello) -> bytes:
    """Return a HELLO frame."""
    return frame(Kind.HELLO, _ENCODER.encode(value))


def auth(value: Auth) -> bytes:
    """Return an AUTH frame."""
    return frame(Kind.AUTH, _ENCODER.encode(value))


def credit(dealt_with_bytes: int) -> bytes:
    """Return a CREDIT frame."""
    return frame(Kind.CREDIT, dealt_with_bytes.to_bytes(_CREDIT_BYTES))


def decode_hello(sent: bytes) -> Hello:
    """Return what the body of a HELLO says. Raises WireError."""
    try:
        value = _HELLO.decode(sent)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise WireError("the HELLO of the peer is malformed") from None
    if value.min_version > value.max_version:
        raise WireError("the HELLO of the peer has an empty range of versions")
    return value


def decode_auth(sent: bytes) -> Auth:
    """Return what the body of an AUTH says. Raises WireError."""
    try:
        return _AUTH.decode(sent)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise WireError("the AUTH of the peer is malformed") from None


def decode_credit(sent: bytes) -> int:
    """Return how many bytes the body of a CREDIT says were dealt with. Raises WireError."""
    if len(sent) != _CREDIT_BYTES:
        raise WireError("the CREDIT of the peer is malformed")
    return int.from_bytes(sent)
