"""Proves to each of two nodes that the other has a key of the cluster: two messages, no I/O.

    who dialled                       who was dialled
    HELLO, AUTH ───────────────────►
                ◄─────────────────── HELLO, AUTH

AUTH is an HMAC with a key of the ring over the role of its sender, the channel and every HELLO so
far, byte by byte: node ids, nonces, versions. The *channel* is a value that both ends derive from
the secrets of this one TLS session (`quic.channel`). So a proof is worth nothing on another
connection: who sits in the middle has two channels, and who repeats an old proof has a new one.
That is why who dialled can prove itself first, and a stranger gets no answer at all. A proof does
not work backwards because the role is in it.

The name of the cluster is in the key of the HMAC. Any key of the ring is accepted, the answer uses
that of the question: keys are changed without a gap (add, promote, remove).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from edgeproxy.errors import WireError
from edgeproxy.wire import session as wire
from edgeproxy.wire.session import Kind

VERSIONS = (1, 1)
"""The oldest and the newest version of the protocol that are spoken here."""

LIMIT_SECS = 2.0
"""How long a stranger has to prove itself, with the handshake of QUIC."""


class Key(Protocol):
    """One key of the cluster."""

    @property
    def id(self) -> bytes:
        """4 bytes, which say nothing about the key."""

    def derived(self, purpose: bytes) -> bytes:
        """Return a key of 32 bytes for one purpose."""


class Ring(Protocol):
    """The keys of the cluster: all are accepted, the primary one is used towards others."""

    @property
    def primary(self) -> Key:
        """The key that is used towards others."""

    def __iter__(self) -> Iterator[Key]:
        """Go over all keys."""


class Refusal(StrEnum):
    """Why a node is not let in."""

    LATE = "late"
    MALFORMED = "malformed"
    CLUSTER = "other_cluster"
    VERSION = "no_common_version"
    KEY = "unknown_key"
    PROOF = "wrong_proof"
    OWN_NODE = "own_node_id"
    OTHER_NODE = "other_node"


HINTS: Mapping[Refusal, str] = {
    Refusal.LATE: (
        "the other end did not prove itself in time: look whether something else than edgeproxy "
        "speaks on this port, and whether the other node is overloaded"
    ),
    Refusal.MALFORMED: (
        "the other end does not speak the protocol: look whether it is an edgeproxy of a version "
        "that is supported"
    ),
    Refusal.CLUSTER: "set the same cluster name on all nodes, and no address of another cluster",
    Refusal.VERSION: "update the older node: the releases are too far apart",
    Refusal.KEY: (
        "give both nodes a key in common: one of EDGEPROXY_REPLICATION_KEYS of each must be the "
        "first one of the other"
    ),
    Refusal.PROOF: (
        "somebody sits between the nodes, or two different keys have the same id: compare the "
        "keys, and look what the address leads to"
    ),
    Refusal.OWN_NODE: (
        "give every node an id of its own, and leave the own address out of the bootstrap peers"
    ),
    Refusal.OTHER_NODE: "another node than expected answers at this address: correct the address",
}
"""What to do about it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, and what it accepts.

    Attributes:
        node_id: 1 to 64 printable ASCII characters without spaces.
        cluster: The name of the cluster.
        ring: Its keys.
        versions: The oldest and the newest version that it speaks.
    """

    node_id: str
    cluster: str
    ring: Ring
    versions: tuple[int, int] = VERSIONS

    @property
    def cluster_hash(self) -> bytes:
        """What a HELLO says of the name, to tell a foreign cluster from a wrong key."""
        named = b"edgeproxy cluster\0" + self.cluster.encode()
        return hashlib.sha256(named).digest()[: wire.CLUSTER_BYTES]

    def key(self, key_id: bytes) -> Key | None:
        """Return the key with this id, if the ring has it."""
        return next((key for key in self.ring if key.id == key_id), None)

    def proof(self, key: Key, role: bytes, channel: bytes, hellos: tuple[bytes, ...]) -> bytes:
        """Return the HMAC that belongs into an AUTH."""
        derived = key.derived(b"edgeproxy session 1\0" + self.cluster.encode())
        parts = (role, channel, *hellos)
        said = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(derived, said, "sha256")


class Peer(NamedTuple):
    """Who the other end has proved to be.

    `version` is the one to be spoken, `key_id` that of the key of the proof.
    """

    node_id: str
    version: int
    key_id: bytes


class Outcome(NamedTuple):
    """The end of an exchange: the peer, and the bytes that it has still to be sent."""

    peer: Peer
    reply: bytes = b""


_DIALLED, _ANSWERED = b"dialled", b"answered"


class Exchange:
    """One end of one exchange. It is over with the first `Outcome` or `Refusal`.

    Args:
        me: This node.
        channel: What ties it to the connection.
        nonce: 32 random bytes.
        dialled: Whether this end has dialled.
        expected: The id of the node that must answer; None for any.
    """

    __slots__ = ("_channel", "_dialled", "_expected", "_heard", "_me", "_mine")

    def __init__(
        self,
        me: Identity,
        channel: bytes,
        nonce: bytes,
        *,
        dialled: bool,
        expected: str | None = None,
    ) -> None:
        oldest, newest = me.versions
        self._me = me
        self._channel = channel
        self._dialled = dialled
        self._expected = expected
        self._mine = wire.hello(wire.Hello(oldest, newest, me.cluster_hash, me.node_id, nonce))
        self._heard: tuple[wire.Hello, bytes] | None = None  # decoded, and as a frame

    def opening(self) -> bytes:
        """Return what the end that has dialled sends first."""
        assert self._dialled
        key = self._me.ring.primary
        mac = self._me.proof(key, _DIALLED, self._channel, (self._mine,))
        return self._mine + wire.auth(wire.Auth(key.id, mac))

    def receive(self, kind: Kind, body: bytes) -> Outcome | Refusal | None:
        """Return what follows from a frame of the other end; None if one more must come."""
        try:
            if kind is Kind.HELLO and self._heard is None:
                self._heard = (wire.decode_hello(body), wire.frame(kind, body))
                return None
            if kind is Kind.AUTH and self._heard is not None:
                return self._judge(*self._heard, wire.decode_auth(body))
        except WireError:
            pass
        return Refusal.MALFORMED

    def _judge(self, hello: wire.Hello, theirs: bytes, auth: wire.Auth) -> Outcome | Refusal:
        me = self._me
        version = min(hello.max_version, me.versions[1])
        if hello.cluster != me.cluster_hash:
            return Refusal.CLUSTER
        if version < max(hello.min_version, me.versions[0]):
            return Refusal.VERSION
        key = me.key(auth.key_id)
        if key is None:
            return Refusal.KEY
        role, hellos = (_ANSWERED, (self._mine, theirs)) if self._dialled else (_DIALLED, (theirs,))
        due = me.proof(key, role, self._channel, hellos)
        if not hmac.compare_digest(auth.mac, due):
            return Refusal.PROOF
        if hello.node_id == me.node_id:
            return Refusal.OWN_NODE
        if self._expected not in (None, hello.node_id):
            return Refusal.OTHER_NODE
        peer = Peer(hello.node_id, version, auth.key_id)
        if self._dialled:
            return Outcome(peer)
        mac = me.proof(key, _ANSWERED, self._channel, (theirs, self._mine))
        return Outcome(peer, self._mine + wire.auth(wire.Auth(auth.key_id, mac)))
