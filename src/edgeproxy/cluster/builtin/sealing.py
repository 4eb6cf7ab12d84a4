"""Seals what members send each other, and opens it: nothing that is not authentic gets through.

    "EG" | version 1 | flags 0 | key id 4 | sender 8 | instance 8 | salt 8 | counter 8   40 bytes
    mark 8                                                                               48
    sealed body | tag 16                                                    1,200 bytes at most

* Every start of every sender has a key of its own: HKDF of the cluster's key over the cluster's
  name, the hash of the node id, the instance and a random salt. The counter is the nonce. So none
  is used twice: not by two nodes, not after a restart, and not by two clones of one disk.
* The mark is a keyed hash of the header, with a key that all share. A flood of forged headers costs
  one hash each, and nothing is derived or remembered for it.
* The cluster's name is in both keys: what is of another cluster does not open.
* A datagram is taken once (`core/cluster/replay_window`). Those of an earlier start of a sender are
  `is_stale` once a later one was heard: instances only grow. A receiver that has just started may
  take a recorded datagram for a new one. What is inside is then old, and membership believes only
  what is newer than what it holds; the first datagram of the sender's present start ends it.

Never an answer to what does not open; the caller counts `Dropped` by its kind.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from collections import OrderedDict
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.cluster.builtin.keys import ClusterKey, KeyRing
from edgeproxy.core.cluster.replay_window import ReplayWindow

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"EG"
VERSION = 1
MAX_BYTES = 1200
"""Of a datagram: QUIC's least, which every path carries (RFC 9000 section 14)."""

MAX_COUNTER = 2**48
"""A sender has to start anew before it has sent so many (own: at 1,000 a second 8,900 years)."""

MAX_SENDERS = 2048
"""Senders that are remembered, least recently heard forgotten first: twice the members."""

_HEADER = struct.Struct("!2sBB4s8sQ8sQ")
_MARK_BYTES = 8
_SEALED_AT = _HEADER.size + _MARK_BYTES
_TAG_BYTES = 16
OVERHEAD_BYTES = _SEALED_AT + _TAG_BYTES


class Dropped(StrEnum):
    """Why a datagram was not opened."""

    LENGTH = "length"
    FOREIGN = "foreign"
    """It is not of this protocol at all."""
    VERSION = "version"
    UNKNOWN_KEY = "unknown_key"
    FORGED = "forged"
    """Made or changed by somebody without the key, or for another cluster."""
    REPLAYED = "replayed"


class Opened(NamedTuple):
    """What an authentic datagram says.

    Attributes:
        sender: The hash of the sender's node id.
        instance: Which start of it.
        is_stale: A later start of it was heard before.
        key_id: The key that sealed it.
    """

    sender: bytes
    instance: int
    is_stale: bool
    key_id: bytes
    body: bytes


def sender_hash(node_id: str) -> bytes:
    """Return how a header names a node."""
    return hashlib.sha256(node_id.encode()).digest()[:8]


class _KeysOf:
    """What is derived of one key of the ring for one cluster; the latest starts are kept."""

    __slots__ = ("_cluster", "_key", "_starts", "mark_key")

    def __init__(self, key: ClusterKey, cluster: str) -> None:
        self._key = key
        name = cluster.encode()
        self._cluster = len(name).to_bytes(4) + name
        self._starts: OrderedDict[bytes, AESGCM] = OrderedDict()
        self.mark_key = key.derived(b"edgeproxy gossip mark" + self._cluster)

    def mark(self, header: bytes) -> bytes:
        return hashlib.blake2b(header, digest_size=_MARK_BYTES, key=self.mark_key).digest()

    def of_start(self, start: bytes) -> AESGCM:
        """Return the key of `start`: sender, instance and salt as they are in a header."""
        found = self._starts.get(start)
        if found is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            found = AESGCM(self._key.derived(b"edgeproxy gossip" + self._cluster + start))
            self._starts[start] = found
            if len(self._starts) > MAX_SENDERS:
                self._starts.popitem(last=False)
        self._starts.move_to_end(start)
        return found


class _Start(NamedTuple):
    """The latest start of a sender that was heard."""

    order: tuple[int, bytes]
    window: ReplayWindow


class Sealer:
    """Seals what one start of this node sends.

    `instance` has to be larger than that of every earlier start.
    """

    def __init__(self, ring: KeyRing, cluster: str, node_id: str, instance: int) -> None:
        self._cluster = cluster
        self._start = sender_hash(node_id) + instance.to_bytes(8) + secrets.token_bytes(8)
        self._counter = 0
        self.use(ring)

    def use(self, ring: KeyRing) -> None:
        """Seal with the first key of another ring from now on."""
        self._key_id = ring.primary.id
        self._keys = _KeysOf(ring.primary, self._cluster)

    def seal(self, body: bytes) -> bytes:
        """Return the datagram of a body of at most `MAX_BYTES - OVERHEAD_BYTES`."""
        counter = self._counter
        assert counter < MAX_COUNTER
        self._counter += 1
        start = self._start
        header = _HEADER.pack(
            *(MAGIC, VERSION, 0, self._key_id),
            *(start[:8], int.from_bytes(start[8:16]), start[16:], counter),
        )
        header += self._keys.mark(header)
        return header + self._keys.of_start(start).encrypt(_nonce(counter), body, header)


class Opener:
    """Opens what others send; one for all senders."""

    def __init__(self, ring: KeyRing, cluster: str) -> None:
        self._cluster = cluster
        self._keys: dict[bytes, _KeysOf] = {}
        self._senders: OrderedDict[bytes, _Start] = OrderedDict()
        self.use(ring)

    def use(self, ring: KeyRing) -> None:
        """Open with the keys of another ring from now on. What was seen stays seen."""
        self._keys = {key.id: self._keys.get(key.id) or _KeysOf(key, self._cluster) for key in ring}

    def open(self, datagram: bytes) -> Opened | Dropped:
        """Return what a datagram says, if it is authentic and was not opened before."""
        if not OVERHEAD_BYTES <= len(datagram) <= MAX_BYTES:
            return Dropped.LENGTH
        fields = _HEADER.unpack_from(datagram)
        magic, version, _flags, key_id, sender, instance, salt, counter = fields
        if magic != MAGIC:
            return Dropped.FOREIGN
        if version != VERSION:
            return Dropped.VERSION
        keys = self._keys.get(key_id)
        if keys is None:
            return Dropped.UNKNOWN_KEY
        header = datagram[:_SEALED_AT]
        if not hmac.compare_digest(keys.mark(header[: _HEADER.size]), header[_HEADER.size :]):
            return Dropped.FORGED
        known = self._senders.get(sender)
        order = (instance, salt)
        if known is not None and order == known.order and not known.window.is_new(counter):
            return Dropped.REPLAYED
        body = self._decrypted(keys, header, datagram[_SEALED_AT:], counter)
        if body is None:
            return Dropped.FORGED
        is_stale = known is not None and order < known.order
        if not is_stale:
            self._note(sender, order, counter)
        return Opened(sender, instance, is_stale, key_id, body)

    def _decrypted(self, keys: _KeysOf, header: bytes, sealed: bytes, counter: int) -> bytes | None:
        from cryptography.exceptions import InvalidTag

        try:
            return keys.of_start(header[8:32]).decrypt(_nonce(counter), sealed, header)
        except InvalidTag:
            return None

    def _note(self, sender: bytes, order: tuple[int, bytes], counter: int) -> None:
        known = self._senders.get(sender)
        if known is None or known.order != order:
            known = self._senders[sender] = _Start(order, ReplayWindow())
            if len(self._senders) > MAX_SENDERS:
                self._senders.popitem(last=False)
        self._senders.move_to_end(sender)
        known.window.take(counter)


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12)
